// A Fastify service whose requests know their tenant, so that routes need not say it.
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { drizzle } from 'drizzle-orm/postgres-js'
import { fastify } from 'fastify'
import postgres from 'postgres'
import { z } from 'zod'
import { bus as busPlugin } from '../../../src/fastify/index.ts'
import { defineEvents, defineSubscription, type Bus } from '../../../src/index.ts'

const events = defineEvents({
  'loan.requested': { schema: z.object({ loanId: z.string(), userId: z.string() }) },
})

declare module '../../../src/fastify/index.ts' {
  interface RegisteredBus {
    bus: Bus<typeof events>
    requestDefaults: 'tenantId'
  }
}

const checked = Promise.withResolvers<{ tenantId: string; correlationId: string | undefined }>()
const checkLoan = defineSubscription(events, {
  name: 'check-loan',
  events: ['loan.requested'],
  handler: ({ tenantId, correlationId }) => checked.resolve({ tenantId, correlationId }),
})

export async function run({ url }: { url: string }) {
  const client = postgres(url)
  const db = drizzle(client)
  const user = new AsyncLocalStorage<string>()
  const app = fastify({ genReqId: () => randomUUID() })
  app.addHook('onRequest', (request, _reply, done) => user.run(String(request.headers['x-user']), done))
  await app.register(busPlugin, {
    database: url,
    events,
    source: 'loans',
    defaults: (request) => ({ tenantId: String(request.headers['x-tenant']) }),
  })
  app.bus.subscribe(checkLoan)
  app.post('/loans/:id', async (request, reply) => {
    const { id: loanId } = z.object({ id: z.string() }).parse(request.params)
    const payload = { loanId, userId: user.getStore() ?? 'nobody' }
    await db.transaction(async (tx) => request.bus.publish(tx, { type: 'loan.requested', payload }))
    return reply.code(202).send({ requestId: request.id })
  })

  const response = await app.inject({
    method: 'POST',
    url: '/loans/7',
    headers: { 'x-tenant': 'acme', 'x-user': 'ada' },
  })
  const { requestId } = response.json<{ requestId: string }>()
  const { tenantId, correlationId } = await checked.promise
  const loans = await app.bus.tenant('acme').events.find({ type: 'loan.requested' })
  await app.close()
  await client.end()
  return {
    status: response.statusCode,
    tenantId,
    correlated: correlationId === requestId,
    payloads: loans.map(({ payload }) => payload),
  }
}
