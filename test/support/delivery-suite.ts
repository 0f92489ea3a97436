import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleOnPostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { onTestFinished } from 'vitest'
import { testBus } from './bus.ts'
import { until, type TestDatabase } from './database.ts'
import { createEffects } from './effects.ts'

const past = new Date('2001-02-03T04:05:06.789Z')
const future = new Date('2101-02-03T04:05:06.789Z')

/** What `runDeliverySuite` gives where everything is as it should be. */
export const goodDelivery = {
  duplicates: [false, false, false, true],
  aloneIsDuplicate: false,
  notes: ['first', 'fourth', 'second', 'third', 'without transaction'],
  attempts: [2, 2, 2, 2, 2],
  ordered: { a: [0, 1, 2, 3, 4], b: [0, 1, 2, 3, 4] },
  onceEffects: 5,
  onceEvents: 5,
  expiredStates: ['expired', 'expired'],
  ofAcme: ['expired', 'fourth', 'without transaction'],
  ofHexTwin: ['first', 'second', 'third'],
  typesAreRight: true,
  scheduledIsCancelled: true,
  deadLetters: ['dead'],
  pausedState: 'paused',
}

/** Where the statements of a publisher go. */
export type Publisher = 'node-postgres' | 'postgres.js' | 'postgres.js with parsers of its own'

/**
 * What a service does with a bus, in short: publishes in all ways, by both drivers; attempts that fail and are made again; order by
 * key; exactly once; two tenants of which one's name spells the other's in hexadecimal digits; reads. Gives what came of it.
 *
 * @param url - for the bus and for the service; `database` is for looking at what they did
 */
export async function runDeliverySuite(
  database: TestDatabase,
  url: string,
  { publisher = 'node-postgres' }: { readonly publisher?: Publisher } = {},
): Promise<typeof goodDelivery> {
  await createEffects(database)
  const bus = testBus(url)
  const attempts = new Map<string, number>()
  const ordered: Record<string, number[]> = { a: [], b: [] }
  const retry = { delaySeconds: 0, backoff: false } as const
  bus.subscribe({
    name: 'retried',
    events: ['note'],
    retry,
    handler: ({ payload }, { attempt }) => {
      if (attempt === 1) throw new Error('the first attempt fails')
      attempts.set(String(payload), attempt)
    },
  })
  bus.subscribe({
    name: 'ordered',
    events: ['payment.paid'],
    ordered: true,
    handler: ({ orderingKey = '', payload }) => void ordered[orderingKey]?.push(payload.amountCents),
  })
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async ({ id, payload }, { tx }) => {
      await tx.execute(sql`insert into public.effects values (${id}, ${String(payload)})`)
    },
  })
  bus.subscribe({
    name: 'dead',
    events: ['payment.refunded'],
    retry: { ...retry, maxAttempts: 1 },
    handler: () => {
      throw new Error('every attempt fails')
    },
  })
  await bus.start()

  const [acme, twin] = ['acme', 'a636d65']
  const db = publisherDb(url, publisher)
  const note = { type: 'note', tenantId: twin } as const
  const published = await db.transaction(
    async (tx) =>
      bus.publishMany(tx, [
        { ...note, payload: 'first', eventId: 'one' },
        { ...note, payload: 'second', correlationId: 'c "q" \\ NULL', subject: 'NULL' },
        { ...note, payload: 'third', idempotencyKey: 'three', causationId: randomUUID(), expiresAt: future },
        { ...note, payload: 'again', eventId: 'one', metadata: { a: 'b' } },
      ]),
    { accessMode: 'read write' },
  )
  await db.transaction(
    async (tx) => {
      await bus.publish(tx, { type: 'note', tenantId: acme, payload: 'fourth', expiresAt: future })
      await bus.publish(tx, { type: 'note', tenantId: acme, payload: 'expired', expiresAt: past })
      await bus.publish(tx, { type: 'payment.refunded', tenantId: 'other', payload: { paymentId: 'dead' } })
    },
    { accessMode: 'read write' },
  )
  for (let amountCents = 0; amountCents < 5; amountCents += 1)
    await db.transaction(
      async (tx) =>
        bus.publishMany(
          tx,
          ['a', 'b'].map((orderingKey) => ({
            type: 'payment.paid',
            tenantId: 'other',
            orderingKey,
            payload: { paymentId: 'p', amountCents },
          })),
        ),
      { accessMode: 'read write' },
    )
  const alone = await bus.tryPublish({ type: 'note', tenantId: acme, payload: 'without transaction' })
  const scheduled = await bus.tryPublish({
    type: 'note',
    tenantId: 'other',
    payload: 'x',
    availableAt: future,
  })
  const scheduledIsCancelled = await db.transaction(async (tx) => bus.cancel(tx, scheduled?.id ?? ''), {
    accessMode: 'read write',
  })
  await until(
    'everything is delivered',
    async () =>
      attempts.size === 5 &&
      ordered['a']?.length === 5 &&
      ordered['b']?.length === 5 &&
      (await database.count(`select count(*) from bus.deliveries d join bus.events e on e.id = d.event_id
        where e.type = 'note'`)) === 12 &&
      (await bus.deadLetters.list()).length === 1,
  )
  const [effects] = await database.rows(
    'select count(*)::int as n, count(distinct event_id)::int as events from effects',
  )
  const { acmeEvents, twinEvents } = {
    acmeEvents: await bus.tenant(acme).events.find(),
    twinEvents: await bus.tenant(twin).events.find(),
  }
  const expired = acmeEvents.find(({ payload }) => payload === 'expired')
  const deliveries = await bus.deliveries(expired?.id ?? '')
  const fourth = await bus.deliveries(acmeEvents.find(({ payload }) => payload === 'fourth')?.id ?? '')
  const [deadLetter] = await bus.deadLetters.list()
  await bus.subscriptions.pause('dead', { by: 'somebody' })
  const subscriptions = await bus.subscriptions.list()
  const paused = subscriptions.find(({ name }) => name === 'dead')
  const isRecent = (time: Date | undefined): boolean =>
    time instanceof Date && Math.abs(time.getTime() - Date.now()) < 60_000
  return {
    duplicates: published.map(({ duplicate }) => duplicate),
    aloneIsDuplicate: alone?.duplicate ?? true,
    notes: [...attempts.keys()].toSorted(),
    attempts: [...attempts.values()],
    ordered: { a: ordered['a'] ?? [], b: ordered['b'] ?? [] },
    onceEffects: Number(effects?.['n']),
    onceEvents: Number(effects?.['events']),
    expiredStates: deliveries.map(({ state }) => state),
    ofAcme: acmeEvents.map(({ payload }) => String(payload)).toSorted(),
    ofHexTwin: twinEvents.map(({ payload }) => String(payload)).toSorted(),
    typesAreRight:
      published[0]?.id === published[3]?.id &&
      published.every(({ id }) => /^[0-9a-f-]{36}$/.test(id)) &&
      isRecent(acmeEvents[0]?.createdAt) &&
      expired?.expiresAt?.getTime() === past.getTime() &&
      acmeEvents[0]?.schemaVersion === 1 &&
      fourth.every(({ settledAt, deliveredAt }) => isRecent(settledAt) && isRecent(deliveredAt)) &&
      fourth.every(({ durationMs }) => typeof durationMs === 'number' && durationMs >= 0) &&
      isRecent(deadLetter?.deadAt) &&
      typeof deadLetter?.attempts === 'number' &&
      isRecent(paused?.pause?.at) &&
      isRecent(paused?.registeredAt) &&
      Array.isArray(paused?.events) &&
      typeof paused.waitingCount === 'number',
    scheduledIsCancelled,
    deadLetters: [deadLetter?.subscription ?? ''],
    pausedState: paused?.state ?? '',
  }
}

/** A service's own Drizzle, with the settings of its database and role. */
function publisherDb(url: string, publisher: Publisher): ReturnType<typeof drizzle> {
  if (publisher !== 'node-postgres') {
    const types = publisher === 'postgres.js' ? {} : hostilePostgresTypes
    const client = postgres(url, { max: 2, onnotice: () => {}, types })
    onTestFinished(async () => client.end({ timeout: 1 }))
    return drizzleOnPostgresJs(client) as unknown as ReturnType<typeof drizzle>
  }
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  return drizzle(pool)
}

const boxed = (from: number[]) => ({
  to: from[0] ?? 0,
  from,
  serialize: String,
  parse: (text: string) => ({ text }),
})

/** Parsers that make something else of everything. */
const hostilePostgresTypes = {
  text: boxed([25, 1043]),
  number: boxed([20, 21, 23, 700, 701, 1700]),
  time: boxed([1082, 1114, 1184]),
  json: boxed([114, 3802]),
}
