import type { NewEvent } from '../../src/index.ts'
import type { paymentEvents, PaymentBus } from './bus.ts'
import type { TestDatabase } from './database.ts'

export const retryAtOnce = { maxAttempts: 5, delaySeconds: 0, backoff: false } as const

/** Publishes events in one transaction, and gives their ids. */
export async function publish(
  { db }: TestDatabase,
  bus: PaymentBus,
  ...all: readonly NewEvent<typeof paymentEvents>[]
): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, all))
  return published.map(({ id }) => id)
}
