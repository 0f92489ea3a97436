import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { PgBoss } from 'pg-boss'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { createDatabase, dropDatabase } from '../../src/testing/databases.ts'
import { until } from './database.ts'
import { turnsTable } from './turns.ts'

/** A database to clone in which workers have died. */
export interface Scene {
  readonly name: string
  readonly drop: () => Promise<void>
}

/**
 * Makes a database with the subscriptions of step-process.ts and what workers leave that die: a batch of each kind of
 * subscription that is active and silent, a key whose job stands for several events, and a key whose job is gone.
 */
export async function makeSceneOfDeadWorkers(serverUrl: string, template: string): Promise<Scene> {
  const name = `dead_workers_${randomUUID().replaceAll('-', '')}`
  const url = await createDatabase(serverUrl, name, template)
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create table effects (event_id uuid not null, what text not null);
    create table commits (key text, what text not null); ${turnsTable}`)
  await publishAndHandBack(url, client)
  const boss = new PgBoss({
    connectionString: url,
    supervise: false,
    schedule: false,
    migrate: false,
    registerInstance: false,
  })
  boss.on('error', () => {})
  await boss.start()
  for (const queue of ['bus.plain', 'bus.once', 'bus.ordered', 'bus.both'])
    await boss.fetch(queue, { batchSize: 100 })
  await boss.stop({ graceful: false })
  await client.query(`update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`)
  await client.query(`delete from pgboss.job where name = 'bus.ordered'
    and id in (select job_id from bus.ordered_keys where ordering_key = 'orphaned')`)
  await client.end()
  return {
    name,
    drop: async () => dropDatabase(serverUrl, name),
  }
}

/** A bus whose handlers do not end hands over what is published, and gives everything back when it stops. */
async function publishAndHandBack(url: string, client: pg.Client): Promise<void> {
  const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
  const retry = { maxAttempts: 30, delaySeconds: 0, backoff: false }
  let running = 0
  const handler = async (_event: unknown, { signal }: { signal: AbortSignal }): Promise<void> => {
    running += 1
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
  }
  bus.subscribe({ name: 'plain', events: ['note'], retry, handler })
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', retry, handler })
  bus.subscribe({ name: 'ordered', events: ['payment.paid'], ordered: true, retry, handler })
  bus.subscribe({
    ...{ name: 'both', events: ['payment.paid'], ordered: true, mode: 'exactly-once' },
    ...{ retry, handler },
  })
  await bus.start()
  await client.query(`
    with names as (select format('dead.%s', n) as what from generate_series(1, 5) n),
    state as (insert into commits select null, what from names)
    insert into bus.events (tenant_id, type, source, payload) select 'a', 'note', 'sql', to_jsonb(what) from names`)
  await client.query(`
    with turns as (select k, n from unnest('{dead,orphaned}'::text[]) k, generate_series(0, 3) n),
    state as (insert into commits select k, n from turns)
    insert into bus.events (tenant_id, type, source, payload, ordering_key)
    select 'a', 'payment.paid', 'sql', jsonb_build_object('paymentId', 'good', 'amountCents', n), k from turns order by k, n`)
  await until('all subscriptions have something in hand', () => running >= 10)
  await bus.stop({ graceMs: 0 })
}
