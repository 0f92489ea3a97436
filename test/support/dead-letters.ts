import type { Operation, SubscriptionOptions } from '../../src/index.ts'
import type { paymentEvents, PaymentBus } from './bus.ts'
import { until, type TestDatabase } from './database.ts'

type Events = typeof paymentEvents

/** What a subscription of these tests has done, and whether it fails. */
export interface Doomed {
  /** The payloads that it has handled. */
  readonly done: unknown[]
  /** Every attempt. */
  readonly tried: { readonly payload: unknown; readonly attempt: number }[]
  fails: boolean | ((payload: unknown) => boolean)
}

/** Subscribes to notes, and fails at them until told otherwise. */
export function subscribeDoomed(
  bus: PaymentBus,
  name: string,
  options: Partial<Omit<SubscriptionOptions<Events, 'note'>, 'name' | 'events' | 'handler' | 'mode'>> = {},
): Doomed {
  const doomed: Doomed = { done: [], tried: [], fails: true }
  bus.subscribe({
    ...{ name, events: ['note'], circuitBreaker: false },
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    ...options,
    handler: ({ payload }, { attempt }) => {
      doomed.tried.push({ payload, attempt })
      const { fails } = doomed
      if (typeof fails === 'function' ? fails(payload) : fails)
        throw new TypeError(`account ${String(payload).length} is unknown`)
      doomed.done.push(payload)
    },
  })
  return doomed
}

/** Waits for an operation to end or stop. */
export async function ended(bus: PaymentBus, { id }: Operation, timeoutMs?: number): Promise<Operation> {
  await until(
    'the operation has ended',
    async () => (await bus.operations.get(id)).state !== 'running',
    timeoutMs,
  )
  return bus.operations.get(id)
}

/** Waits until so many events are dead letters. */
export async function untilDead({ count }: TestDatabase, letterCount: number): Promise<void> {
  await until(
    `${letterCount} are dead`,
    async () => (await count(`select count(*) from bus.failing where state <> 'retrying'`)) === letterCount,
  )
}
