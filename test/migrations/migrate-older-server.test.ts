import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { oldServer, where } from '../support/old-server.ts'
import { shippedMigrationCount } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'
import { openSession } from '../support/session.ts'

async function createOldDatabase() {
  const database = await createTestDatabase({ serverUrl: oldServer?.url, empty: true })
  const pool = new pg.Pool({ connectionString: database.url, max: 3 })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  return { ...database, db: drizzle(pool) }
}

test.skipIf(oldServer === undefined)(
  `an older server gets the same schema, and delivers ${where}`,
  async () => {
    const { url, db, rows, count } = await createOldDatabase()
    const bus = testBus(url)
    await bus.migrate()
    await bus.migrate()
    expect(await count('select count(*) from bus.migrations')).toBe(shippedMigrationCount())
    expect(await describeSchema(rows)).toBe(await checkedInSchema())
    const seen: unknown[] = []
    bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    await bus.start()
    const event = { type: 'note', tenantId: 'acme', payload: 'published', eventId: 'e' } as const
    const first = await db.transaction(async (tx) => bus.publish(tx, event))
    expect(await db.transaction(async (tx) => bus.publish(tx, event))).toEqual({ ...first, duplicate: true })
    await rows(
      `insert into bus.events (tenant_id, type, source, payload, available_at) values
     ('acme', 'note', 'psql', '"never"', 'infinity'), ('acme', 'note', 'psql', '"inserted"', null)`,
    )
    await until('both were handled', () => seen.length === 2)
    expect(new Set(seen)).toEqual(new Set(['inserted', 'published']))
    await until('the relay sleeps, with the scheduled event in view', async () => {
      const health = await bus.health()
      return health.relay === 'sleeping'
    })
    expect(await count('select count(*) from bus.outbox')).toBe(1)
  },
)

test.skipIf(oldServer === undefined)(
  `the emulated uuid_v7 has version, variant, time and order ${where}`,
  async () => {
    const database = await createOldDatabase()
    await testBus(database.url).migrate()
    const session = await openSession(database)
    const given = await session.rows(
      `select bus.uuid_v7() as id, extract(epoch from clock_timestamp()) * 1000 as now from generate_series(1, 10000)`,
    )
    for (let i = 0; i < 200; i += 1)
      given.push(
        ...(await session.rows(
          `select bus.uuid_v7() as id, extract(epoch from clock_timestamp()) * 1000 as now`,
        )),
      )
    const ids = given.map(({ id }) => String(id))
    expect(new Set(ids).size).toBe(10_200)
    expect(ids).toEqual(ids.toSorted())
    for (const { id, now } of given) {
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      const time = Number.parseInt(String(id).replaceAll('-', '').slice(0, 12), 16)
      expect(Math.abs(time - Number(now))).toBeLessThan(1000)
    }
    // A clock that was set back does not set the ids back.
    await session.rows(
      `select set_config('bus.last_uuid_us', ((extract(epoch from clock_timestamp()) + 60) * 1000000)::bigint::text, false)`,
    )
    const [ahead] = await session.rows('select bus.uuid_v7() as id')
    expect(String(ahead?.['id']) > (ids.at(-1) ?? '')).toBe(true)
    const [next] = await session.rows('select bus.uuid_v7() as id')
    expect(String(next?.['id']) > String(ahead?.['id'])).toBe(true)
  },
)
