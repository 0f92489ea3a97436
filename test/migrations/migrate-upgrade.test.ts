import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { migrateTo, shippedMigrationCount } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

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
    // Events without a key have no order.
    expect(new Set(seen)).toEqual(new Set(['before', 'after']))
    expect(await count('select count(*) from bus.deliveries where subscription_id = 1000')).toBe(
      hasDeliveries ? 1 : 0,
    )
  },
)
