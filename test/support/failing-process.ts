/**
 * A service whose every event carries the canary, with the bus's own logger, that takes every way of failing it can: what it
 * prints, and what it leaves in the database, is searched by test/foundation/every-failure.test.ts. Prints `done: <what>` for each.
 */
import { inspect } from 'node:util'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { z } from 'zod'
import { createBus, defineEvents, RetryAfterError } from '../../src/index.ts'
import { canary } from './canary.ts'
import { until } from './database.ts'

const [url = '', deadUrl = ''] = process.argv.slice(2)
const payload = { secret: canary, list: [canary] }
const fields = { tenantId: 'acme', subject: 'customers/7', payload, metadata: { header: canary } }
const schema = z.object({ secret: z.string(), list: z.array(z.string()) })
const events = defineEvents({
  old: {
    schema,
    version: 2,
    upcast: {
      1: (given: unknown) => {
        throw new SyntaxError(`cannot read ${JSON.stringify(given)}`, { cause: given })
      },
    },
  },
  newer: { schema, version: 1 },
  refused: { schema: z.object({ secret: z.email(), list: z.array(z.string().length(1)) }) },
  note: { schema },
  slow: { schema },
  aborted: { schema },
  cast: { schema },
  later: { schema },
})
const client = postgres(url, { max: 3, onnotice: () => {} })
const db = drizzle(client)
const pool = new pg.Pool({ connectionString: url, max: 2 })
pool.on('error', () => {})
const bus = createBus({ database: { connectionString: url, max: 4 }, events, source: 'canary' })
const done = (what: string): void => console.log(`done: ${what}`)
/** Prints what an error shows, as an unhandled one would be. */
const show = async (what: string, work: Promise<unknown>): Promise<void> => {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (error === undefined) throw new Error(`${what} did not fail`)
  console.error(
    inspect(error, { depth: 10, showHidden: true }),
    (error as Error).message,
    JSON.stringify(error),
  )
  done(what)
}

// Publishing that is refused: by a schema, by triggers and checks of the user's, in a transaction that has failed.
await show(
  'schema',
  db.transaction(async (tx) => bus.publish(tx, { type: 'refused', ...fields })),
)
await bus.tryPublish({ type: 'refused', ...fields })
await pool.query(`create function public.guard() returns trigger language plpgsql as $$ begin
  if new.source = 'canary' and new.type = 'cast' then perform (new.payload->>'secret')::int; end if;
  if new.source = 'canary' and new.type = 'later' then raise exception 'refused' using errcode = '23514', detail = new.payload::text, hint = new.payload::text; end if;
  return new; end $$`)
await pool.query(
  'create trigger guard before insert on bus.events for each row execute function public.guard()',
)
for (const type of ['cast', 'later'] as const) {
  await show(
    `trigger: ${type}`,
    db.transaction(async (tx) => bus.publish(tx, { type, ...fields })),
  )
  await bus.tryPublish({ type, ...fields })
}
await pool.query('drop trigger guard on bus.events')
await show(
  'failed transaction',
  db.transaction(async (tx) => {
    await tx.execute(sql`select 1/0`).catch(() => {})
    await bus.publish(tx, { type: 'note', ...fields })
  }),
)
const nowhere = createBus({ database: deadUrl, events, source: 'canary' })
await nowhere.tryPublish({ type: 'note', ...fields })
await show('lost database: erase', nowhere.erase({ tenantId: 'acme', subject: canary, by: canary }))
await show('lost database: cancel', nowhere.cancel('01900000-0000-7000-8000-000000000000'))
console.error(JSON.stringify(await nowhere.health()))
await nowhere.stop()

// Delivering that fails in the bus's own ways. What a handler itself throws is its own text.
const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false } as const
const constant = async (): Promise<void> => Promise.reject(new Error('always'))
bus.subscribe({ name: 'old', events: ['old'], retry, handler: () => {} })
bus.subscribe({ name: 'newer', events: ['newer'], retry: { ...retry, maxAttempts: 1 }, handler: () => {} })
bus.subscribe({ name: 'failing', events: ['note'], retry, handler: constant })
bus.subscribe({
  name: 'ordered',
  events: ['note'],
  ordered: true,
  onKeyFailure: 'park',
  retry,
  handler: constant,
})
bus.subscribe({
  name: 'again',
  events: ['note'],
  retry,
  handler: () => {
    throw new RetryAfterError(0)
  },
})
bus.subscribe({
  name: 'slow',
  events: ['slow'],
  retry: { ...retry, maxAttempts: 1 },
  timeoutSeconds: 1,
  handler: async () => new Promise(() => {}),
})
bus.subscribe({
  name: 'aborted',
  events: ['aborted'],
  mode: 'exactly-once',
  retry,
  handler: async (event, { tx }) => {
    // Caught, so that the bus is who reports it.
    await tx.execute(sql`select ${event.payload.secret}::int`).catch(() => {})
  },
})
bus.subscribe({
  name: 'unique',
  events: ['aborted'],
  mode: 'exactly-once',
  retry,
  handler: async (event, { tx }) => {
    await tx.execute(sql`insert into public.secrets values (${event.payload.secret})`)
  },
})
await pool.query(`create table public.secrets (secret text primary key)`)
await pool.query(`insert into public.secrets values ($1)`, [canary])
await bus.start()
await pool.query(
  `insert into bus.events (tenant_id, type, source, subject, schema_version, payload, metadata) values
   ('acme', 'old', 'sql', 'customers/7', 1, $1, '{}'), ('acme', 'newer', 'sql', 'customers/7', 9, $1, '{}')`,
  [JSON.stringify(payload)],
)
await db.transaction(async (tx) => {
  await bus.publish(tx, { type: 'note', ...fields, orderingKey: 'k' })
  await bus.publishMany(tx, [
    { type: 'note', ...fields, orderingKey: 'k' },
    { type: 'slow', ...fields },
    { type: 'aborted', ...fields },
  ])
})
await until('all are dead', async () => {
  const dead = await bus.deadLetters.list()
  return new Set(dead.map(({ subscription }) => subscription)).size === 8
})
done('dead letters')

// The relay and the workers lose their connections, and the relay its privileges, while there is something to do.
await pool.query('alter table bus.outbox rename to outbox_gone')
await new Promise((resolve) => setTimeout(resolve, 300))
await show(
  'a table that is gone',
  db.transaction(async (tx) => bus.publish(tx, { type: 'note', ...fields })),
)
await pool.query('alter table bus.outbox_gone rename to outbox')
await db.transaction(async (tx) => bus.publish(tx, { type: 'note', ...fields }))
await pool.query(
  `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'bossbus'`,
)
await until('the bus has recovered', async () => (await bus.health()).ok)
console.error(
  JSON.stringify([await bus.health(), await bus.deadLetters.list(), await bus.blockedKeys.list()]),
)
done('lost connections')
await bus.stop({ graceMs: 2000 })
await client.end()
await pool.end()
done('all')
