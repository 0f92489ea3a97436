import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate } from 'drizzle-orm/node-postgres/migrator'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { shippedMigrationCount } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url))

/** Brings an empty database to where the first so many migrations lead. */
async function migrateTo(url: string, migrationCount: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-older-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await cp(migrationsFolder, folder, { recursive: true })
  const journalFile = join(folder, 'meta/_journal.json')
  const journal = JSON.parse(await readFile(journalFile, 'utf8')) as { entries: unknown[] }
  await writeFile(
    journalFile,
    JSON.stringify({ ...journal, entries: journal.entries.slice(0, migrationCount) }),
  )
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await migrate(drizzle(client), {
    migrationsFolder: folder,
    migrationsSchema: 'bus',
    migrationsTable: 'migrations',
  })
  await client.end()
}

test.each(Array.from({ length: shippedMigrationCount() - 1 }, (_, i) => i + 1))(
  'a database of %i migrations with rows in it gets the newest schema, and what waited is delivered',
  async (migrationCount) => {
    const { url, db, rows, count } = await createTestDatabase({ empty: true })
    await migrateTo(url, migrationCount)
    await rows(
      `insert into bus.events (tenant_id, type, source, subject, payload) values ('acme', 'note', 'sql', 's', '"before"')`,
    )
    const hasDeliveries = migrationCount >= 2
    if (hasDeliveries)
      await rows(
        `insert into bus.deliveries (subscription_id, event_id, attempts, duration_ms) select 1000, id, 1, 1 from bus.events`,
      )
    const bus = testBus(url)
    await bus.migrate()
    expect(await describeSchema(rows)).toBe(await checkedInSchema())
    const seen: unknown[] = []
    bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    await bus.start()
    await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 'after' }))
    await until('both are delivered', () => seen.length === 2)
    expect(seen).toEqual(['before', 'after'])
    expect(await count('select count(*) from bus.deliveries where subscription_id = 1000')).toBe(
      hasDeliveries ? 1 : 0,
    )
  },
)
