import type { Database, Executor } from '../../database/database.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { fulfilling, readDeclarations, typeMatcher } from './declarations.ts'
import { hasExpired, isErased, type LoadedEvents } from '../attempts/event-reader.ts'
import { type JobData, leftGroup } from '../jobs/job.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { queueName } from '../jobs/queues.ts'

/** The events of a job that this process does not cover, by who does. */
interface Uncovered {
  /** Whether a live process covers one of those that go back. */
  readonly isCoveredElsewhere: boolean
  /** No code has them any more: newer code has left them out on purpose, and what had them is gone. */
  readonly unwanted: readonly string[]
}

/**
 * What the code of this process covers of its subscription. While versions differ, as during a deployment, a job may bring events
 * that only other code covers: they go back, with no attempt counted, in a group of jobs that this code does not fetch.
 */
export interface Coverage {
  /** The groups of jobs that are left to other code. */
  readonly ignoredGroups: readonly string[]
  /** The events of a job that are not this process's to handle. */
  find: (data: JobData, eventIds: Iterable<string>, events: LoadedEvents) => Promise<Set<string>>
  /** Whether this code covers all these types, and is among the declarations named. */
  coversAll: (types: readonly string[], declarations: readonly number[] | undefined) => boolean
  /** Who covers some events that this code does not. What only newer code had waits for it. */
  judge: (eventIds: readonly string[], events: LoadedEvents) => Promise<Uncovered>
  /** The declarations that a job is left by from now on, this one included: their group is not fetched here again. */
  leave: (data: JobData) => readonly number[]
  /** Notes that jobs wait for other code, so that they are looked at again when the registry changes. */
  noteLeft: () => Promise<void>
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
        // Gone from the log: that is found where it would begin.
        if (type === undefined) continue
        if (!matches(type)) uncovered.add(id)
        else if (where !== undefined) undecided.push(id)
      }
      if (
        where !== undefined &&
        undecided.length > 0 &&
        data.declarations?.includes(declarationId()) !== true
      ) {
        const fulfilled = await fulfilling(executor, undecided, where)
        for (const id of undecided) if (!fulfilled.has(id)) uncovered.add(id)
      }
      // Erased and expired events are nobody's: whoever finds them settles them.
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
    async judge(eventIds, events) {
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
            : await fulfilling(executor, ofType, declaration.where)
        for (const id of covered) {
          left.delete(id)
          isCoveredElsewhere ||= declaration.isLive
        }
      }
      return { isCoveredElsewhere, unwanted: [...left] }
    },
    leave({ leftBy = [] }) {
      const by = [...new Set([...leftBy, declarationId()])].toSorted((a, b) => a - b)
      const group = leftGroup(by)
      if (!ignoredGroups.includes(group)) ignoredGroups.push(group)
      return by
    },
    async noteLeft() {
      await executor.query(
        'update bus.subscriptions set uncovered_since = clock_timestamp() where id = $1 and uncovered_since is null',
        [subscriptionId],
      )
    },
  }
}

/** Lets every process look again at what was left to other code: that may be the one which was just declared, or nobody's by now. */
export async function callBackLeft(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  names: readonly string[],
): Promise<void> {
  const { rows } = await executor.query<{ id: number; name: string }>(
    'update bus.subscriptions set uncovered_since = null where name = any($1::text[]) and uncovered_since is not null returning id, name',
    [names],
  )
  for (const { id, name } of rows) {
    await executor.query(
      `update ${executor.bossSchema}.job set group_id = null, priority = greatest(priority, 0)
       where name = $1 and state < 'active' and data ? 'leftBy'`,
      [queueName(name)],
    )
    await executor.query(wakeSql, [wakePayload('', [id])])
  }
}
