import type { Database, Executor } from '../../database/database.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { filterByPredicate, readDeclarations, typeMatcher } from './declarations.ts'
import { hasExpired, isErased, type LoadedEvents } from '../attempts/event-reader.ts'
import { declinedGroup, offerDeclinedJobs } from '../jobs/declined-jobs.ts'
import type { JobData } from '../jobs/job.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { queueName } from '../jobs/queues.ts'

/** The events of a job that this process does not cover, grouped by who covers them. */
interface Uncovered {
  /** Whether a live process covers one of the requeued events. */
  readonly isCoveredElsewhere: boolean
  /** Events that no code covers any more: newer code has dropped them deliberately, and the code that covered them is gone. */
  readonly unwanted: readonly string[]
}

/**
 * What this process's code covers of its subscription. While versions differ, as during a deployment, a job may contain
 * events that only other code covers. They are requeued without counting an attempt, in a group of jobs that this code
 * does not fetch.
 */
export interface Coverage {
  /** The groups of jobs that are left to other code. */
  readonly ignoredGroups: readonly string[]
  /** The events of a job that this process must not handle. */
  find: (data: JobData, eventIds: Iterable<string>, events: LoadedEvents) => Promise<Set<string>>
  /** Whether this code covers all these types, and is one of these declarations. */
  coversAll: (types: readonly string[], declarations: readonly number[] | undefined) => boolean
  /** Determines who covers events that this code does not. Events that only newer code covered wait for it. */
  findOwners: (eventIds: readonly string[], events: LoadedEvents) => Promise<Uncovered>
  /** The declarations that do not cover a job, including this one: this process no longer fetches their group. */
  decline: (data: JobData) => readonly number[]
  /** Records that jobs wait for other code, so that they are offered again when the registry changes. */
  recordDeclined: () => Promise<void>
}

export function createCoverage(
  executor: Executor,
  subscription: Subscription,
  subscriptionId: number,
  declarationId: () => number,
): Coverage {
  const { name, where } = subscription
  const matches = typeMatcher(subscription)
  const ignoredGroups: string[] = []

  return {
    ignoredGroups,
    async find(data, eventIds, events) {
      const uncovered = new Set<string>()
      const undecided: string[] = []
      for (const id of eventIds) {
        const type = events.typeOf(id)
        // The event is no longer in the log; that is handled when it would start.
        if (type === undefined) continue
        if (!matches(type)) uncovered.add(id)
        else if (where !== undefined) undecided.push(id)
      }
      if (
        where !== undefined &&
        undecided.length > 0 &&
        data.declarations?.includes(declarationId()) !== true
      ) {
        const fulfilled = await filterByPredicate(executor, undecided, where)
        for (const id of undecided) if (!fulfilled.has(id)) uncovered.add(id)
      }
      // Erased and expired events need no coverage: any process settles them.
      for (const id of uncovered) {
        const event = events.get(id)
        if (event === undefined || isErased(event) || hasExpired(event)) uncovered.delete(id)
      }
      return uncovered
    },
    coversAll(types, declarations) {
      if (declarations !== undefined && !declarations.includes(declarationId())) return false
      return types.every(matches)
    },
    async findOwners(eventIds, events) {
      const known = await readDeclarations(executor, [name])
      const newestActive = known.findLast(({ isActive }) => isActive)?.id ?? 0
      const left = new Set(eventIds)
      let isCoveredElsewhere = false
      for (const declaration of known) {
        if (!declaration.isActive && declaration.id < newestActive) continue
        const has = typeMatcher(declaration)
        const ofType = [...left].filter((id) => has(events.typeOf(id) ?? ''))
        const covered =
          declaration.where === undefined || ofType.length === 0
            ? ofType
            : await filterByPredicate(executor, ofType, declaration.where)
        for (const id of covered) {
          left.delete(id)
          isCoveredElsewhere ||= declaration.isLive
        }
      }
      return { isCoveredElsewhere, unwanted: [...left] }
    },
    decline({ declinedBy = [] }) {
      const by = [...new Set([...declinedBy, declarationId()])].toSorted((a, b) => a - b)
      const group = declinedGroup(by)
      if (!ignoredGroups.includes(group)) ignoredGroups.push(group)
      return by
    },
    async recordDeclined() {
      await executor.query(
        'update bus.subscriptions set uncovered_since = clock_timestamp() where id = $1 and uncovered_since is null',
        [subscriptionId],
      )
    },
  }
}

/** Offers jobs that were left to other code to every process again: a new declaration may cover them, or nobody may. */
export async function reofferDeclinedJobs(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  names: readonly string[],
): Promise<void> {
  const { rows } = await executor.query<{ id: number; name: string }>(
    'update bus.subscriptions set uncovered_since = null where name = any($1::text[]) and uncovered_since is not null returning id, name',
    [names],
  )
  for (const { id, name } of rows) {
    await offerDeclinedJobs(executor, queueName(name))
    await executor.query(wakeSql, [wakePayload('', [id])])
  }
}
