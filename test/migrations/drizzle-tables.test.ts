import { eq, is } from 'drizzle-orm'
import { getTableConfig, PgTable } from 'drizzle-orm/pg-core'
import { expect, test } from 'vitest'
import * as schema from '../../src/schema.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'

/** As PostgreSQL says it. Drizzle 1.x gives the dimensions of an array apart. */
function sqlTypeOf(column: { getSQLType: () => string; dimensions?: number }): string {
  const type = column.getSQLType().replace(/^timestamp \(6\)/, 'timestamp(6)')
  return type + '[]'.repeat(column.dimensions ?? 0)
}

test('the Drizzle tables have the columns, keys and indexes of the database', async () => {
  const { rows } = await createTestDatabase()
  const declared = Object.values(schema)
    .filter((value) => is(value, PgTable))
    .map((table) => {
      const { name, columns, indexes, primaryKeys } = getTableConfig(table)
      const keys = [
        ...columns.filter(({ primary }) => primary),
        ...primaryKeys.flatMap(({ columns }) => columns),
      ]
      return {
        name,
        columns: columns.map((column) => ({
          name: column.name,
          type: sqlTypeOf(column),
          notNull: column.notNull,
          filled: column.hasDefault || column.generatedIdentity !== undefined,
        })),
        key: keys.map((column) => column.name),
        indexes: indexes.map(({ config }) => config.name ?? '').sort((a, b) => a.localeCompare(b)),
      }
    })
    .sort((a, b) => a.name.localeCompare(b.name))
  const found = await rows(`
    select c.relname as name,
      (select json_agg(json_build_object(
         'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull,
         'filled', a.atthasdef or a.attidentity <> '') order by a.attnum)
       from pg_attribute a where a.attrelid = c.oid and a.attnum > 0) as columns,
      (select coalesce(json_agg(a.attname order by k.place), '[]')
       from pg_constraint p cross join unnest(p.conkey) with ordinality as k (attnum, place)
       join pg_attribute a on a.attrelid = p.conrelid and a.attnum = k.attnum
       where p.conrelid = c.oid and p.contype = 'p') as key,
      (select coalesce(json_agg(x.relname order by x.relname), '[]')
       from pg_index i join pg_class x on x.oid = i.indexrelid
       where i.indrelid = c.oid and not exists (select from pg_constraint p where p.conindid = i.indexrelid)) as indexes
    from pg_class c
    where c.relnamespace = 'bus'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      and c.relname <> 'migrations'
    order by c.relname`)
  expect(declared).toEqual(found)
  expect(found.length).toBeGreaterThan(4)
})

test('the log can be read and joined through its Drizzle table', async () => {
  const { url, db } = await createTestDatabase()
  const bus = testBus(url)
  const { events, eventKeys } = schema
  const { id } = await db.transaction(async (tx) =>
    bus.publish(tx, { type: 'note', tenantId: 'acme', payload: { a: 1 }, eventId: 'e1' }),
  )
  const [row] = await db
    .select({ event: events, kind: eventKeys.kind })
    .from(events)
    .innerJoin(eventKeys, eq(eventKeys.id, events.id))
    .where(eq(events.tenantId, 'acme'))
  expect(row).toMatchObject({
    event: { id, type: 'note', payload: { a: 1 }, metadata: {}, createdAt: expect.any(Date) as Date },
    kind: 'event_id',
  })
})
