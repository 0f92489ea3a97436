import type { Bus } from '../../bus-interface.ts'
import type { EventDelivery } from '../../operations/event-deliveries.ts'

/** Something that has become of an event for a subscription. */
export interface Outcome {
  readonly eventId: string
  /** Undefined: no subscription receives the event, and `sentence` says so. */
  readonly delivery: EventDelivery | undefined
  readonly sentence: string | undefined
}

/** What becomes of some events, until nothing more will. */
export interface DeliveryFollower {
  readonly add: (eventId: string) => void
  /** Finds what has changed since the last look. */
  readonly look: () => Promise<void>
  /** What looks have found, each once: also those that failed half way, or that nobody waited for any more. */
  readonly take: () => readonly Outcome[]
  /** Events of which more is to come. */
  readonly waitingCount: () => number
  /** Whether some were given up because there were too many at once. */
  readonly isBounded: () => boolean
}

/** A retrying delivery may become anything else; the others stay what they are, but for a redrive by a person. */
const final = new Set<EventDelivery['state']>([
  ...(['delivered', 'expired', 'erased', 'discarded', 'dead', 'replayed'] as const),
])

/** Each is looked up by index. */
const maxFollowed = 200
const concurrency = 4

/** An event without deliveries is asked for the reason so often, in looks. */
const asksEvery = 4

interface Followed {
  readonly told: Set<string>
  looks: number
}

export function createDeliveryFollower(bus: Bus): DeliveryFollower {
  const followed = new Map<string, Followed>()
  let outcomes: Outcome[] = []
  let isBounded = false

  async function lookAt(eventId: string, each: Followed): Promise<void> {
    const deliveries = await bus.deliveries(eventId)
    each.looks += 1
    if (deliveries.length === 0) {
      if (each.looks % asksEvery !== 1) return
      const { reason, sentence, subscriptions } = await bus.explain(eventId)
      const isOver = reason === undefined || reason.reason === 'cancelled'
      if (!isOver || subscriptions.some(({ state }) => state !== undefined)) return
      if (followed.delete(eventId)) outcomes.push({ eventId, delivery: undefined, sentence })
      return
    }
    for (const delivery of deliveries) {
      if (delivery.state === 'waiting' || delivery.state === 'delivering') continue
      const what = `${delivery.subscription} ${delivery.state} ${delivery.attempts}`
      if (each.told.has(what)) continue
      each.told.add(what)
      outcomes.push({ eventId, delivery, sentence: undefined })
    }
    if (deliveries.every(({ state }) => final.has(state))) followed.delete(eventId)
  }

  return {
    add(eventId) {
      followed.set(eventId, { told: new Set(), looks: 0 })
      const [oldest] = followed.keys()
      if (followed.size <= maxFollowed || oldest === undefined) return
      followed.delete(oldest)
      isBounded = true
    },
    async look() {
      const rest = [...followed]
      const work = async (): Promise<void> => {
        for (let next = rest.shift(); next !== undefined; next = rest.shift()) await lookAt(...next)
      }
      await Promise.all(Array.from({ length: concurrency }, work))
    },
    take() {
      const taken = outcomes
      outcomes = []
      return taken
    },
    waitingCount: () => followed.size,
    isBounded: () => isBounded,
  }
}
