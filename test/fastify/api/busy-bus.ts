import { testBus, type PaymentBus } from '../../support/bus.ts'
import { until, type TestDatabase } from '../../support/database.ts'
import { publish } from '../../support/ledger.ts'
import { openApiApp, type ApiApp } from './api-app.ts'

const once = { maxAttempts: 1, delaySeconds: 0, backoff: false } as const

/**
 * The events of one tenant, by what becomes of them. `plain`: delivered to everybody. `dead`: dead in `doomed`, and blocks its key in
 * `in-order`. `behind`: waits behind it. `retrying`: by `patient`. `caused`: by the first one.
 */
type TenantIds = Readonly<Record<'plain' | 'dead' | 'behind' | 'retrying' | 'scheduled' | 'caused', string>>

export interface BusyApp extends ApiApp {
  readonly acme: TenantIds
  readonly rival: TenantIds
}

const tenants = ['acme', 'rival'] as const

function subscribeAll(bus: PaymentBus): void {
  const failAt = (payload: unknown, what: string): void => {
    if ((payload as { what?: unknown }).what === what) throw new TypeError(`cannot ${what}`)
  }
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], retry: once, circuitBreaker: false },
    handler: ({ payload }) => failAt(payload, 'dead'),
  })
  bus.subscribe({
    ...{ name: 'patient', events: ['note'], retry: { maxAttempts: 3, delaySeconds: 3600, backoff: false } },
    ...{ circuitBreaker: false, handler: ({ payload }) => failAt(payload, 'retrying') },
  })
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: once, circuitBreaker: false },
    handler: ({ payload }) => failAt(payload, 'dead'),
  })
}

async function publishFor(database: TestDatabase, bus: PaymentBus, tenantId: string): Promise<TenantIds> {
  const event = (what: string) => ({ type: 'note', tenantId, payload: { what, of: tenantId } }) as const
  const [plain = '', dead = '', behind = '', retrying = '', scheduled = ''] = await publish(
    database,
    bus,
    {
      ...event('plain'),
      ...{ subject: 'customer-1', correlationId: 'flow-1', eventId: 'order-1', idempotencyKey: 'key-1' },
    },
    { ...event('dead'), orderingKey: 'k', correlationId: 'flow-1' },
    { ...event('behind'), orderingKey: 'k' },
    event('retrying'),
    { ...event('scheduled'), availableIn: { seconds: 3600 } },
  )
  const [caused = ''] = await publish(database, bus, {
    ...event('caused'),
    ...{ causationId: plain, correlationId: 'flow-1' },
  })
  return { plain, dead, behind, retrying, scheduled, caused }
}

/** A bus with something of everything, for two tenants, and its API. */
export async function openBusyApp(api: Parameters<typeof openApiApp>[0] = {}): Promise<BusyApp> {
  const opened = await openApiApp({
    ...api,
    options: { canary: true },
    async prepare(bus, app) {
      subscribeAll(bus)
      await api.prepare?.(bus, app)
    },
  })
  const { bus, database } = opened
  const gone = testBus(database.url, { source: 'old-service' })
  gone.subscribe({ name: 'old', events: ['payment.refunded'], handler: () => {} })
  await gone.start()
  await gone.stop()
  const acme = await publishFor(database, bus, 'acme')
  const rival = await publishFor(database, bus, 'rival')
  await until('what fails has failed, and the rest is delivered', async () => {
    const states = await bus.events.states([...Object.values(acme), ...Object.values(rival)])
    const count = (state: string): number => states.filter((each) => each.state === state).length
    // Of each tenant: one in doomed and one in in-order; one behind it; one that is retried; of 20 pairs.
    return count('dead') === 4 && count('waiting') === 2 && count('retrying') === 2 && states.length === 40
      ? count('delivered') === 32
      : false
  })
  for (const tenantId of tenants) {
    await bus.erase({ tenantId, subject: 'nobody', by: 'ben', reason: 'a request' })
    const { id } = await bus.replay({
      tenantId,
      ids: [tenantId === 'acme' ? acme.plain : rival.plain],
      subscriptions: ['quick'],
      by: 'ben',
    })
    await until('it is replayed', async () => (await bus.operations.get(id)).state === 'done')
  }
  return { ...opened, acme, rival }
}
