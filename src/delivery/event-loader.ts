import type { StoredEvent } from '../events/envelope.ts'
import type { Executor } from '../outbox/database.ts'
import { loadEvents } from './event-store.ts'

/** Most events of one query, unless one request has more. */
const maxIdsPerQuery = 1000

interface Request {
  readonly ids: readonly string[]
  readonly resolve: (events: readonly StoredEvent[]) => void
  readonly reject: (error: unknown) => void
}

/**
 * Loads events by id, as they were stored, in no order; those that are not in the log are left out. Requests of one turn
 * of the event loop become one query: the jobs of one fetch are small where events are delivered one by one.
 */
export function createEventLoader(
  executor: Executor,
): (ids: readonly string[]) => Promise<readonly StoredEvent[]> {
  let waiting: Request[] = []

  function flush(): void {
    const requests = waiting
    waiting = []
    for (let from = 0; from < requests.length;) {
      const group: Request[] = []
      let idCount = 0
      for (let next = requests[from]; next !== undefined; next = requests[from]) {
        if (group.length > 0 && idCount + next.ids.length > maxIdsPerQuery) break
        group.push(next)
        idCount += next.ids.length
        from += 1
      }
      void loadGroup(group)
    }
  }

  async function loadGroup(group: readonly Request[]): Promise<void> {
    try {
      const events = await loadEvents(
        executor,
        group.flatMap(({ ids }) => ids),
      )
      const byId = new Map(events.map((event) => [event.id, event]))
      for (const { ids, resolve } of group)
        resolve(
          ids.flatMap((id) => {
            const event = byId.get(id)
            return event === undefined ? [] : [event]
          }),
        )
    } catch (error) {
      for (const { reject } of group) reject(error)
    }
  }

  return async (ids) =>
    new Promise((resolve, reject) => {
      if (waiting.length === 0) queueMicrotask(flush)
      waiting.push({ ids, resolve, reject })
    })
}
