import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

test('what somebody put into the schema public before the migration is not what its functions call', async () => {
  const database = await createTestDatabase({ empty: true })
  const hostile = await createLogin(database)
  await database.rows(`grant create on schema public to ${hostile.name}`)
  const session = await openSession({ ...database, url: hostile.url })
  // Each fits better than what PostgreSQL has, so it is found first wherever `public` is searched.
  for (const statement of [
    `create function joined(int, text) returns text language sql as $$ select 'hostile' $$`,
    `create operator || (function = joined, leftarg = int, rightarg = text)`,
    `create function to_hex(numeric) returns text language sql as $$ select 'hostile' $$`,
    `create function length(varchar) returns int language sql as $$ select 7 $$`,
    `create function char_length(varchar) returns int language sql as $$ select 7 $$`,
    `create function same(name, text) returns boolean language sql as $$ select true $$`,
    `create function modulo(bigint, int) returns bigint language sql as $$ select 7 $$`,
  ])
    await session.rows(statement)
  await testBus(database.url).migrate()
  expect(
    await database.rows(
      `select distinct classid::regclass, objid from pg_depend
       where refobjid in (
         select oid from pg_proc where pronamespace = 'public'::regnamespace
         union all select oid from pg_operator where oprnamespace = 'public'::regnamespace)
       and classid = 'pg_proc'::regclass
       and objid in (select oid from pg_proc where pronamespace = 'bus'::regnamespace)`,
    ),
  ).toEqual([])
})
