import { expect } from 'vitest'
import { transportFromUrl } from '../../src/transports/index.ts'
import type { Broker } from './broker.ts'
import { testBus } from './bus.ts'
import { createTestDatabase, until } from './database.ts'

/** How many keys the events of {@link forwardThroughKill} have. */
const keyCount = 10

/** What a reader of a broker got. */
export interface ForwardedMessage {
  readonly id: string
  readonly payload: unknown
}

/**
 * Forwards so many events of the type `note` to a URL, and kills the broker and starts it again in the middle. Resolves when each event
 * counts as delivered.
 */
export async function forwardThroughKill(
  broker: Pick<Broker, 'kill' | 'start'>,
  url: string,
  eventCount: number,
): Promise<void> {
  const { url: databaseUrl, db, count } = await createTestDatabase()
  const bus = testBus(databaseUrl)
  bus.forward({
    ...{ name: 'out', events: ['note'], to: transportFromUrl(url) },
    retry: { delaySeconds: 1, backoff: false, maxAttempts: 50 },
  })
  await bus.start()
  const events = Array.from(
    { length: eventCount },
    (_, n) => ({ type: 'note', tenantId: 'acme', payload: n, orderingKey: `key-${n % keyCount}` }) as const,
  )
  const deliveredCount = async (): Promise<number> => count('select count(*) from bus.deliveries')
  await db.transaction(async (tx) => bus.publishMany(tx, events.slice(0, eventCount / 2)))
  await until('some are delivered', async () => (await deliveredCount()) >= eventCount / 6)
  await broker.kill()
  await db.transaction(async (tx) => bus.publishMany(tx, events.slice(eventCount / 2)))
  await broker.start()
  await until('all are delivered', async () => (await deliveredCount()) === eventCount)
}

/** How many events there are, if every one is there, those of a key in their order, and what is there twice has the same id. */
export function countInOrder(messages: readonly ForwardedMessage[], eventCount: number): number {
  const ids = new Map<number, string>()
  for (const { id, payload } of messages) {
    const n = Number(payload)
    expect(ids.get(n) ?? id).toBe(id)
    ids.set(n, id)
  }
  const firsts = [...ids.keys()]
  expect(firsts.toSorted((x, y) => x - y)).toEqual(Array.from({ length: eventCount }, (_, n) => n))
  for (let key = 0; key < keyCount; key += 1) {
    const ofKey = firsts.filter((n) => n % keyCount === key)
    expect(ofKey).toEqual(ofKey.toSorted((x, y) => x - y))
  }
  return ids.size
}

/** The value, which is there. */
export function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(what)
  return value
}
