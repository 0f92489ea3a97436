// What a provider answers decides: later, never, or as the retry options say.
import { createBus, defineSubscription, NonRetryableError, RetryAfterError } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

interface Answer {
  readonly status: number
  readonly retryAfterSeconds?: number
}

function chargeCard(charge: (paymentId: string, attempt: number) => Answer) {
  return defineSubscription(events, {
    name: 'charge-card',
    events: ['payment.paid'],
    retry: { maxAttempts: 3, delaySeconds: 0, backoff: false },
    handler: ({ payload: { paymentId } }, { attempt }) => {
      const { status, retryAfterSeconds = 30 } = charge(paymentId, attempt)
      if (status === 429) throw new RetryAfterError(retryAfterSeconds)
      if (status === 402) throw new NonRetryableError('The card was refused')
      if (status >= 500) throw new Error(`The provider answered ${status}`)
    },
  })
}

export async function run({ url, db }: Environment) {
  const attempts: Record<string, number> = {}
  const bus = createBus({ database: url, events, source: 'payment-service', defaults: { tenantId: 'acme' } })
  bus.subscribe(
    chargeCard((paymentId, attempt) => {
      attempts[paymentId] = attempt
      if (paymentId === 'refused') return { status: 402 }
      if (paymentId === 'busy')
        return attempt === 1 ? { status: 429, retryAfterSeconds: 0.2 } : { status: 200 }
      return { status: 503 }
    }),
  )
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      ['refused', 'busy', 'down'].map((paymentId) => ({
        type: 'payment.paid',
        payload: { paymentId, amountCents: 4200 },
      })),
    ),
  )
  while ((await bus.deadLetters.list()).length < 2 || attempts['busy'] !== 2)
    await new Promise((resolve) => setTimeout(resolve, 20))
  const dead = await bus.deadLetters.list({ subscription: 'charge-card' })
  await bus.stop()
  return {
    attempts,
    dead: dead.map(({ attempts, failures }) => ({ attempts, last: failures.at(-1)?.message })),
  }
}
