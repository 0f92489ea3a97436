// What a request knows, its tenant, user and correlation id, goes along with every event that is published while it is served.
import { AsyncLocalStorage } from 'node:async_hooks'
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

interface RequestContext {
  readonly tenantId: string
  readonly requestId: string
  readonly userId: string
}
const requestContext = new AsyncLocalStorage<RequestContext>()

/** The context of the request that is being served. @throws outside of one */
function currentRequest(): RequestContext {
  const context = requestContext.getStore()
  if (context === undefined) throw new Error('No request is being served')
  return context
}

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'payment-service' })
  const publisher = bus.with(() => {
    const { tenantId, requestId, userId } = currentRequest()
    return { tenantId, correlationId: requestId, metadata: { userId } }
  })

  async function markPaid(paymentId: string): Promise<void> {
    await db.transaction(async (tx) =>
      publisher.publish(tx, { type: 'payment.paid', payload: { paymentId, amountCents: 4200 } }),
    )
  }

  await requestContext.run({ tenantId: 'acme', requestId: 'r-1', userId: 'ada' }, async () => markPaid('42'))
  await requestContext.run({ tenantId: 'zeta', requestId: 'r-2', userId: 'bob' }, async () => markPaid('43'))
  const outside = await markPaid('44').then(
    () => 'published',
    (error: Error) => error.message,
  )

  const stored = await bus.events.find({ type: 'payment.paid' })
  await bus.stop()
  return {
    stored: stored.map(({ tenantId, correlationId, metadata }) => ({ tenantId, correlationId, ...metadata })),
    outside,
  }
}
