import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import type { PollFloor } from '../../../src/delivery/jobs/queue-state/poll-queue.ts'
import { pollQueues, type QueuePoll } from '../../../src/delivery/maintenance/queue-poll.ts'
import { createDeadLetterReads } from '../../../src/delivery/operator/dead-letters.ts'
import { createSubscriptions } from '../../../src/delivery/operator/subscriptions.ts'
import type { Database } from '../../../src/database/database.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

/** Blocks that one look at a queue touches, planning left out, and what it found. */
async function look(
  { rows }: TestDatabase,
  floor?: PollFloor,
): Promise<{ readonly blocks: number; readonly found: QueuePoll | undefined }> {
  let blocks = 0
  const counting: Pick<Database, 'query' | 'bossSchema'> = {
    bossSchema: 'pgboss',
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      const [plan] = await rows(`explain (analyze, buffers, format json) ${text}`, values)
      const json = plan?.['QUERY PLAN'] as [{ Plan: Record<string, number> }]
      blocks = (json[0].Plan['Shared Hit Blocks'] ?? 0) + (json[0].Plan['Shared Read Blocks'] ?? 0)
      return { rows: (await rows(text, values)) as R[] }
    },
  }
  const { queues } = await pollQueues(counting, [{ name: 'bus.a', floor }])
  return { blocks, found: queues[0] }
}

/**
 * The look of several that touches the fewest blocks. One more than usual is no look's own: when other databases of the server change
 * their schemas, a backend loses its catalog caches, and reading them again counts.
 */
async function cheapestLook(database: TestDatabase): ReturnType<typeof look> {
  let cheapest = await look(database)
  for (let n = 0; n < 9; n += 1) {
    const next = await look(database)
    if (next.blocks < cheapest.blocks) cheapest = next
  }
  return cheapest
}

async function withQueues(count: number): Promise<TestDatabase> {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  for (let n = 0; n < count; n += 1)
    bus.subscribe({ name: n === 0 ? 'a' : `a${n}`, events: ['note'], handler: () => {} })
  await bus.start()
  await bus.stop()
  return database
}

/** Inserts jobs, has them fetched and deletes them: what a busy subscription leaves to be vacuumed. */
async function churn({ rows }: TestDatabase, count: number): Promise<void> {
  await rows(
    `insert into pgboss.job (name, data) select 'bus.a', '{"eventIds": []}' from generate_series(1, ${count})`,
  )
  await rows(
    `update pgboss.job set state = 'active', started_on = now(), heartbeat_on = now(), heartbeat_seconds = 30 where name = 'bus.a'`,
  )
  await rows(`delete from pgboss.job where name = 'bus.a'`)
}

test('a look reads a few blocks of a queue that was never analysed, however many jobs wait in it', async () => {
  const database = await withQueues(1)
  await database.rows(
    `do $$ begin execute (select format('alter table pgboss.%I set (autovacuum_enabled = off)', table_name) from pgboss.queue where name = 'bus.a'); end $$`,
  )
  const empty = await cheapestLook(database)
  await database.rows(`insert into pgboss.job (name, data, state, start_after)
    select 'bus.a', '{"eventIds": []}', (case n % 2 when 0 then 'created' else 'retry' end)::pgboss.job_state, now() + interval '1 hour' + n * interval '1 s'
    from generate_series(1, 40000) n`)
  const full = await cheapestLook(database)
  expect(full.blocks).toBeLessThan(empty.blocks + 30)
  expect(full.found).toMatchObject({ ready: false, lapsed: false, isAhead: false })
  expect(full.found?.dueMs).toBeGreaterThan(3_500_000)
  // Ready, and with what comes next.
  await database.rows(
    `insert into pgboss.job (name, data, start_after) values ('bus.a', '{"eventIds": []}', now() - interval '1 min'), ('bus.a', '{"eventIds": []}', now() + interval '5 min')`,
  )
  const ready = await look(database)
  expect(ready.found?.ready).toBe(true)
  expect(ready.found?.dueMs).toBeLessThan(301_000)
  expect(ready.found?.dueMs).toBeGreaterThan(200_000)
})

test('while a snapshot is held, looks read what came since the last one, not all that has come since the snapshot', async () => {
  const database = await withQueues(1)
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  onTestFinished(async () => holder.end())
  await holder.query(
    'begin isolation level repeatable read; select txid_current(), count(*) from pgboss.queue',
  )
  let seen = await look(database)
  const before = (seen = await look(database, seen.found?.floor)).blocks
  await churn(database, 10_000)
  // The floor is two seconds behind.
  await until('a look reads as little as before', async () => {
    seen = await look(database, seen.found?.floor)
    return seen.blocks <= 2 * before
  })
  expect((await look(database)).blocks).toBeGreaterThan(4 * before)
  // Below the floor nothing is missed that lives: neither what waits, nor who is silent.
  await database.rows(`insert into pgboss.job (name, data, state, started_on, heartbeat_on, heartbeat_seconds) values
    ('bus.a', '{"eventIds": []}', 'active', now(), now() - interval '1 min', 30), ('bus.a', '{"eventIds": []}', 'created', null, null, 30)`)
  for (let n = 0; n < 3; n += 1) {
    seen = await look(database, seen.found?.floor)
    expect(seen.found).toMatchObject({ ready: true, lapsed: true })
  }
})

test('the locks of reads and looks do not add up with the subscriptions', async () => {
  const database = await withQueues(40)
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  onTestFinished(async () => client.end())
  const names = (
    await client.query<{ name: string }>(
      `select name from pgboss.queue where name like 'bus.%' and partition`,
    )
  ).rows
  const reads: Readonly<Record<string, () => Promise<unknown>>> = {
    look: async () =>
      pollQueues(
        Object.assign(client, { bossSchema: 'pgboss' }),
        names.map(({ name }) => ({ name, floor: undefined })),
      ),
    'subscriptions.list': async () =>
      createSubscriptions(
        Object.assign(client, { bossSchema: 'pgboss' }) as unknown as Database,
        'payment-service',
        async () => {},
      ).list(),
    'deadLetters.list': async () => createDeadLetterReads(client as unknown as Database).list(),
    deliveries: async () => client.query('select * from bus.event_deliveries(bus.uuid_v7())'),
    'dead letters of a tenant': async () =>
      client.query(
        `select set_config('bus.tenant_id', 't', true), l.* from bus.tenant_dead_letters(null, 10) l`,
      ),
    'stats of a tenant': async () =>
      client.query(
        `select set_config('bus.tenant_id', 't', true), l.* from bus.tenant_delivery_stats(bus.uuid_v7(), bus.uuid_v7()) l`,
      ),
  }
  expect(names).toHaveLength(40)
  const held: Record<string, number> = {}
  for (const [what, read] of Object.entries(reads)) {
    await client.query('begin')
    await read()
    const { rows } = await client.query<{ count: number }>(
      `select count(*)::int as count from pg_locks where pid = pg_backend_pid()`,
    )
    await client.query('rollback')
    held[what] = rows[0]?.count ?? 0
  }
  expect(Object.entries(held).filter(([, locks]) => locks > 64)).toEqual([])
  expect(Object.keys(held)).toHaveLength(6)
  // Each of a slice, with its dead letters: three subscriptions hold no more than that either.
  await client.query('begin')
  for (const name of ['a', 'a1', 'a2'])
    await client.query(
      `select from pgboss.job where name in ('bus.${name}', 'bus.${name}.dead') and state < 'completed' limit 1`,
    )
  const { rows } = await client.query<{ count: number }>(
    `select count(*)::int as count from pg_locks where pid = pg_backend_pid()`,
  )
  await client.query('rollback')
  expect(rows[0]?.count).toBeLessThanOrEqual(64)
  expect(rows[0]?.count).toBeGreaterThan(40)
})
