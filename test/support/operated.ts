import { fileURLToPath } from 'node:url'
import { NonRetryableError } from '../../src/index.ts'
import { testBus, type PaymentBus } from './bus.ts'
import { createFolder, type CliResult } from './cli.ts'
import { until } from './database.ts'

const catalogue = fileURLToPath(new URL('catalogue.ts', import.meta.url))

/** A folder with a configuration of the events of these tests. */
export async function createOperatorFolder(rest = ''): Promise<string> {
  return createFolder({
    'bossbus.config.ts': `import { paymentEvents } from ${JSON.stringify(catalogue)}
${rest}
export default { events: paymentEvents, source: 'payment-service' ${rest === '' ? '' : ', ...more'} }
`,
  })
}

/** Text that a terminal, a shell or a table may trip over. */
export const hostile = `o'clock "\u202e$(date)\u200b|`

/** A message of another system that could not become an event: the statement that adds it, and its id. */
export const poisonId = '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'
export const addPoison: readonly [text: string, values: unknown[]] = [
  `insert into bus.quarantined_messages
     (id, receiver, message_id, has_id, code, reason, received_from, content_type, message_key, headers, body, body_bytes)
   values ($1, 'orders', $2, true, 'BUS_MAP_FAILED', $2, $2, $2, $2, $3, $4, $5)`,
  [
    ...[poisonId, hostile, JSON.stringify({ [hostile]: hostile })],
    ...[Buffer.from(hostile), Buffer.byteLength(hostile)],
  ],
]

/** What an operator finds. */
export interface Operated {
  /** Dead letters of `ledger`, in their order. `paid-0`, `paid-1`, `paid-2` are their business ids. */
  readonly paid: readonly string[]
  /** The event that blocks the key `hostile` of the tenant `hostile` in `accounts`; another one is behind it. */
  readonly blocked: string
}

/** What the handlers of {@link subscribeOperated} do. */
export interface Switch {
  isBroken: boolean
}

/** `ledger` and `accounts`, which is ordered, fail; `mail` does not; `search` gets nothing. */
export function subscribeOperated(bus: PaymentBus, handlers: Switch = { isBroken: true }): Switch {
  const fail = (): void => {
    if (handlers.isBroken)
      throw Object.assign(new NonRetryableError(`no account ${hostile}`), { name: 'AccountMissing' })
  }
  bus.subscribe({ name: 'ledger', events: ['payment.paid'], circuitBreaker: false, handler: fail })
  bus.subscribe({
    ...{ name: 'accounts', events: ['payment.refunded'], ordered: true, circuitBreaker: false },
    handler: fail,
  })
  bus.subscribe({ name: 'mail', events: ['payment.paid'], handler: () => {} })
  bus.subscribe({ name: 'search', events: ['usage.billed'], handler: () => {} })
  return handlers
}

/** Three dead letters, a blocked key, a paused subscription, and no process. */
export async function operate(url: string): Promise<Operated> {
  const bus = testBus(url)
  subscribeOperated(bus)
  await bus.start()
  const paid: string[] = []
  for (let n = 0; n < 3; n += 1) {
    const published = await bus.tryPublish({
      ...{ type: 'payment.paid', tenantId: 'nordwind', subject: 'payments/42', eventId: `paid-${n}` },
      payload: { paymentId: hostile, amountCents: n },
    })
    paid.push(published?.id ?? '')
    await until('it is dead', async () => (await bus.deadLetters.list()).length === n + 1)
  }
  const refunded: string[] = []
  for (const n of [1, 2]) {
    const published = await bus.tryPublish({
      ...{ type: 'payment.refunded', tenantId: hostile, orderingKey: hostile },
      payload: { paymentId: String(n) },
    })
    refunded.push(published?.id ?? '')
    await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  }
  await until('the other one is behind it', async () => {
    const [key] = await bus.blockedKeys.list()
    return key?.waitingCount === 1
  })
  await bus.subscriptions.pause('search', { by: 'ada', reason: hostile })
  await until('mail has all', async () => {
    const states = await Promise.all(paid.map(async (id) => bus.deliveries(id)))
    return states.flat().filter(({ state }) => state === 'delivered').length === 3
  })
  await bus.stop()
  return { paid, blocked: refunded[0] ?? '' }
}

/** The values of JSON lines. */
export function jsonLines({ out }: Pick<CliResult, 'out'>): Record<string, unknown>[] {
  return out
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}
