import type { PgBoss, Queue, QueueResult } from 'pg-boss'
import { DatabaseError } from '../../foundation/errors.ts'
import { toBusError } from '../../database/database-errors.ts'
import { queueDefaults } from './boss.ts'
import { lossAllowance } from './job.ts'
import { applyQueueStorage } from './queue-storage.ts'
import type { DurableOptions } from '../subscriptions/subscription.ts'

/** The pg-boss queue of a subscription. */
export function queueName(subscriptionName: string): string {
  return `bus.${subscriptionName}`
}

/** The pg-boss queue of a subscription's dead letters. */
export function deadLetterQueueName(subscriptionName: string): string {
  return `bus.${subscriptionName}.dead`
}

/** The part of a subscription that determines its queues. */
export interface QueueOwner extends Pick<DurableOptions, 'retry' | 'heartbeatSeconds'> {
  readonly name: string
}

/**
 * The existing queues of some subscriptions, by name, in one statement: two statements for each would make a start with
 * hundreds of them slow.
 */
export async function readQueues(
  boss: PgBoss,
  subscriptions: readonly Pick<QueueOwner, 'name'>[],
): Promise<ReadonlyMap<string, QueueResult>> {
  const names = subscriptions.flatMap(({ name }) => [queueName(name), deadLetterQueueName(name)])
  if (names.length === 0) return new Map()
  const queues = await boss.getQueues(names, { limit: names.length })
  return new Map(queues.map((queue) => [queue.name, queue]))
}

/**
 * Creates the queues of a subscription, or updates their options. pg-boss does not change the options of an existing
 * queue; policy and partition can never change.
 *
 * @param queues - the existing queues, if they were read for many subscriptions at once
 */
export async function ensureQueues(
  boss: PgBoss,
  subscription: QueueOwner,
  queues?: ReadonlyMap<string, QueueResult>,
): Promise<void> {
  const deadLetter = deadLetterQueueName(subscription.name)
  const name = queueName(subscription.name)
  const { retry } = subscription
  const options = {
    ...queueDefaults,
    heartbeatSeconds: subscription.heartbeatSeconds,
    deadLetter,
    retryLimit: lossAllowance + retry.maxAttempts - 1,
    retryDelay: retry.delaySeconds,
    retryBackoff: retry.backoff,
    ...(retry.backoff ? { retryDelayMax: retry.maxDelaySeconds } : {}),
  }
  const known = queues ?? (await readQueues(boss, [subscription]))
  const found = known.get(name)
  if (!known.has(deadLetter))
    await createQueue(boss, deadLetter, { retentionSeconds: queueDefaults.retentionSeconds })
  if (found === undefined) {
    await createQueue(boss, name, { ...options, partition: true })
    await applyQueueStorage(boss, name)
  } else if (Object.entries(options).some(([key, value]) => found[key as keyof typeof options] !== value)) {
    await boss.updateQueue(name, { ...options, ...(retry.backoff ? {} : { retryDelayMax: null as never }) })
  }
}

/** Creates a table, which a worker's role may not do: then an owner does it at deployment. */
async function createQueue(boss: PgBoss, name: string, options: Omit<Queue, 'name'>): Promise<void> {
  await boss.createQueue(name, options).catch((error: unknown) => {
    const cause = toBusError(error)
    if (cause.code !== 'BUS_PERMISSION_DENIED') throw cause
    throw new DatabaseError(
      cause.code,
      `The queue \`${name}\` is missing, and the role of this bus may not create it: declare the subscription, then run bus.migrate() as the owner of the schemas`,
      { cause, sqlState: '42501' },
    )
  })
}
