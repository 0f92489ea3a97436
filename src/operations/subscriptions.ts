import type pg from 'pg'
import { checkActor, writeAudit, type Actor } from '../audit/audit.ts'
import { withLock } from '../database/advisory-lock.ts'
import { isLockTimeout } from '../database/database-errors.ts'
import type { Database } from '../database/database.ts'
import { unstartedBoss } from '../delivery/jobs/boss.ts'
import { assertUsableBoss } from '../delivery/jobs/boss-version.ts'
import { countJobs, dropQueues, lockQueue, moveJobs } from '../delivery/jobs/leftover-jobs.ts'
import { deadLetterQueueName, ensureQueues, queueName } from '../delivery/jobs/queues.ts'
import { assertSubscriptionName } from '../delivery/subscriptions/subscription-name.ts'
import { findSubscription as findRegistered } from '../delivery/registry/find-subscription.ts'
import { checkName, type SubscriptionControls } from '../delivery/operator/subscriptions.ts'
import { notifyState } from '../delivery/flow-control/subscription-state.ts'
import { ConfigurationError } from '../foundation/errors.ts'
import { locks } from '../database/locks.ts'
import type { BusLogger } from '../foundation/logger.ts'
import {
  assertObject,
  booleanOption,
  describe,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import { refuseUncovered } from './moved-events.ts'
import { insertOperation, type Operation } from './operation.ts'
import type { Operations } from './operations.ts'
import {
  countWaiting,
  findSubscription,
  refuseServed,
  refuseTakenName,
  refuseWaiting,
  type FoundSubscription,
  type WaitingCounts,
} from './subscription-guards.ts'

/** Lists the subscriptions of all services, changes them while they run, removes and renames them. */
export interface Subscriptions extends SubscriptionControls {
  /**
   * Removes a subscription that no process serves any more: no event is handed to it from then on. An operation of the kind `remove` then
   * deals with what waits, in any process that has started, and deletes the queues. Receipts and attempts stay in the ledger under its
   * id, which `bus.removed_subscriptions` names. Until the operation is done, the name is not to be used again.
   * With `dryRun: true` it only checks and counts.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_SUBSCRIPTION_SERVED`, `BUS_SUBSCRIPTION_NOT_EMPTY`,
   *   `BUS_SUBSCRIPTION_NOT_COVERING`, `BUS_INVALID_OPTION`, before anything is changed
   */
  remove: <O extends RemoveOptions>(name: string, options: O) => Promise<RemovedOr<Operation, O>>
  /**
   * Gives a subscription that no process serves another name: start the code with the new name afterwards. Its receipts, what waits, its
   * dead letters, pauses and blocked keys stay with it. In one transaction; at most 20,000 jobs may wait. It creates a queue, so the role
   * must own the tables of pg-boss, as that of a start does: `bus_operator` alone is not enough.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_SUBSCRIPTION_SERVED`, `BUS_SUBSCRIPTION_NOT_EMPTY`,
   *   `BUS_SUBSCRIPTION_TAKEN`, `BUS_INVALID_OPTION`, before anything is changed
   * @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED`, before anything is changed
   */
  rename: (name: string, newName: string, options: RenameOptions) => Promise<void>
}

/** Who removes a subscription, why, and what becomes of what waits. */
export interface RemoveOptions {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /**
   * `'refuse'`: nothing is removed while events or dead letters wait. `'discard'`: they are deleted; the log keeps the events. `{ moveTo }`:
   * they are handed to another subscription, without their attempts so far; what it has received already is left out. It is refused if that one
   * does not cover them, as far as the first thousand jobs say; a part that finds others stops the operation.
   * @defaultValue `'refuse'`
   */
  readonly waiting?: 'refuse' | 'discard' | { readonly moveTo: string } | undefined
  /** Checks all that a removal checks, counts what waits, and changes nothing. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
}

/** With `dryRun: true` what waits; otherwise the operation. */
export type RemovedOr<T, O> = O extends { readonly dryRun: true } ? WaitingCounts : T

/** Who renames a subscription, and why. */
export interface RenameOptions {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** Maximum number of jobs that a rename moves. They are moved in one transaction. */
const maxMovedJobs = 20_000

/** How long a rename waits for a lock, how often it tries again, and the pause before. */
const lockTimeoutMs = 50
const maxTries = 40
const pauseMs = 100

export function createSubscriptionRemoval(
  database: Database,
  operations: Operations,
  logger: BusLogger,
): Pick<Subscriptions, 'remove' | 'rename'> {
  async function remove(name: string, options: RemoveOptions): Promise<Operation | WaitingCounts> {
    const { by, reason, waiting, dryRun } = checkRemoval(checkName(name), options)
    const moveTo = typeof waiting === 'object' ? waiting.moveTo : undefined
    const check = async (): Promise<{
      readonly subscription: FoundSubscription
      readonly counts: WaitingCounts
    }> => {
      const subscription = await findSubscription(database, name)
      const target = moveTo === undefined ? undefined : await findRegistered(database, moveTo)
      await refuseServed(database, subscription)
      const counts = await countWaiting(database, subscription)
      if (waiting === 'refuse') refuseWaiting(name, counts)
      if (target !== undefined) await refuseUncovered(database, subscription, target)
      return { subscription, counts }
    }
    if (dryRun) return (await check()).counts
    const id = await withLock(database, locks.registry, async () => {
      const { subscription, counts } = await check()
      return database.transaction(async (client) => {
        const operationId = await insertOperation(client, {
          ...{ kind: 'remove', by, reason, action: 'subscriptions.remove', subscription: name },
          selection: { subscription: name },
          options: { name, waiting: moveTo === undefined ? waiting : 'move', moveTo },
          subscriptionIds: [subscription.id],
          expected: counts,
        })
        await database.faultPoint?.('remove-subscription.operation-inserted')
        await deleteSubscription(client, subscription, by)
        return operationId
      })
    })
    await database.faultPoint?.('remove-subscription.committed')
    return operations.get(id)
  }

  return {
    remove: remove as Subscriptions['remove'],
    async rename(name, newName, options) {
      checkName(name)
      assertSubscriptionName(newName, 'newName')
      if (newName === name)
        throw invalidOption(`Expected \`newName\` to be another name than ${describe(name)}`, 'newName')
      const { by, reason } = checkOptions(options, 'subscriptions.rename', ['by', 'reason'])
      await assertUsableBoss(database)
      await withLock(database, locks.registry, async () => {
        const subscription = await findSubscription(database, name)
        await refuseServed(database, subscription)
        await refuseTakenName(database, newName)
        const { jobCount } = await countJobs(database, queueName(name), maxMovedJobs + 1)
        const { jobCount: deadCount } = await countJobs(database, deadLetterQueueName(name), maxMovedJobs + 1)
        if (jobCount + deadCount > maxMovedJobs)
          throw new ConfigurationError(
            'BUS_SUBSCRIPTION_NOT_EMPTY',
            `More than ${maxMovedJobs} jobs wait for the subscription \`${name}\`, too many for a rename: let it work them off first, or start the code with the new name and call remove('${name}', { waiting: { moveTo: '${newName}' } })`,
          )
        await ensureQueues(unstartedBoss(database, logger), { name: newName, ...subscription.options })
        await database.faultPoint?.('rename-subscription.queues-created')
        await whileLocked(database, async () =>
          database.transaction(async (client) => {
            await writeAudit(
              client,
              {
                ...{ by, reason, action: 'subscriptions.rename', subscription: name },
                change: { from: name, to: newName },
              },
              {},
            )
            await client.query(`set local lock_timeout = '${lockTimeoutMs}ms'`)
            await lockQueue(client, database, name)
            await client.query(
              `update bus.subscriptions set name = $2, revision = nextval('bus.subscription_revision'), updated_at = now() where id = $1`,
              [subscription.id, newName],
            )
            await moveJobs(client, database, name, newName)
            await database.faultPoint?.('rename-subscription.jobs-moved')
            await dropQueues(client, database, name)
            await notifyState(client, [subscription.id])
          }),
        )
      })
      await database.faultPoint?.('rename-subscription.committed')
    },
  }
}

/** Repeats what met a lock that another session holds: relays and workers hold those of a queue for milliseconds. */
async function whileLocked(database: Database, work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work()
    } catch (error) {
      if (!isLockTimeout(error) || tries === maxTries) throw error
      await database.pause(pauseMs * (0.5 + Math.random()))
    }
  }
}

/** From the commit on no relay hands events to it: the stamp of the registry counts the subscriptions. */
async function deleteSubscription(
  client: pg.ClientBase,
  { id }: FoundSubscription,
  by: string,
): Promise<void> {
  await client.query(
    `insert into bus.removed_subscriptions (id, name, service, registered_at, removed_by)
     select id, name, service, created_at, $2 from bus.subscriptions where id = $1 on conflict (id) do update
     set name = excluded.name, service = excluded.service, removed_at = excluded.removed_at, removed_by = excluded.removed_by`,
    [id, by],
  )
  await client.query('delete from bus.declarations where subscription_id = $1', [id])
  await client.query('delete from bus.subscriptions where id = $1', [id])
}

interface CheckedRemoval {
  readonly by: string
  readonly reason: string | undefined
  readonly waiting: NonNullable<RemoveOptions['waiting']>
  readonly dryRun: boolean
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
function checkRemoval(name: string, options: RemoveOptions): CheckedRemoval {
  const who = checkOptions(options, 'subscriptions.remove', ['by', 'reason', 'waiting', 'dryRun'])
  const actor = { ...who, dryRun: booleanOption('dryRun', options.dryRun, false) }
  const { waiting = 'refuse' } = options
  if (waiting === 'refuse' || waiting === 'discard') return { ...actor, waiting }
  if (waiting === null || typeof waiting !== 'object')
    throw invalidOption(
      `Expected \`waiting\` to be 'refuse', 'discard' or { moveTo }, got ${describe(waiting)}`,
      'waiting',
    )
  refuseUnknownKeys(waiting, ['moveTo'], '`waiting`')
  const moveTo = checkName(waiting.moveTo, 'waiting.moveTo')
  if (moveTo === name)
    throw invalidOption(
      `Expected \`waiting.moveTo\` to be another subscription than ${describe(name)}`,
      'waiting.moveTo',
    )
  return { ...actor, waiting: { moveTo } }
}

function checkOptions(options: RenameOptions, call: string, known: readonly string[]): Actor {
  assertObject('options like { by, reason }', options)
  refuseUnknownKeys(options, known, call)
  return checkActor(options)
}
