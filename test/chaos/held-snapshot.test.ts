// @module-tag slow
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startOwnServer, type OwnServer } from '../support/own-server.ts'
import { roomFor } from '../support/slowness.ts'

/** What a relay, a worker and upkeep send, by what their statements have in common. */
const kinds = {
  claim: `delete from bus\\.outbox`,
  state: `as registry_stamp`,
  job: `insert into pgboss\\.j`,
  // The first of a job that was just inserted, for a worker that is free; the other where it is not.
  fetchDirectly: `j\\.priority >= .*update pgboss\\.\\S+ j set\\s`,
  fetch: `^(?!.*j\\.priority >=).*update pgboss\\.\\S+ j set\\s`,
  line: `as queue, null as key|as queue, \\$\\d+ as key`,
  key: `bus\\.enqueue_ordered`,
} as const
type Kind = keyof typeof kinds

type Blocks = Readonly<Record<Kind, { readonly calls: number; readonly each: number }>>

async function blocksOf({ rows }: OwnServer): Promise<Blocks> {
  const entries = Object.entries(kinds).map(async ([kind, pattern]) => {
    const [row] = await rows(
      `select coalesce(sum(calls), 0)::int as calls, coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8 as blocks
       from pg_stat_statements where query ~* $1`,
      [pattern],
    )
    const calls = Number(row?.['calls'])
    return [kind, { calls, each: calls === 0 ? 0 : Number(row?.['blocks']) / calls }] as const
  })
  return Object.fromEntries(await Promise.all(entries)) as Blocks
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

/** Events a second, one a transaction, and for how many seconds a look lasts. */
const rate = isFullForm ? 500 : 100
const lookSeconds = isFullForm ? 10 : 2
const warmUpSeconds = isFullForm ? 10 : 1

/**
 * In how many keys the events go round. A key that has something to do has a row; under a held snapshot it costs a block for each event
 * that the key had since (docs/guarantees.md): the long form shows what that comes to with few keys, and bounds it with many.
 */
const keyCounts = isFullForm ? [undefined, 50, 5000] : [undefined, 50]

/** What goes on while the snapshot is held and nobody looks: a minute at that rate, or as many dead rows in one go. */
const burial = isFullForm ? { seconds: 60, events: 0 } : { seconds: 0, events: 15_000 }

test.each(keyCounts)(
  'a snapshot that is held for long makes claims no dearer (keys: %s)',
  async (keyCount) => {
    const server = await startOwnServer([
      'shared_preload_libraries=pg_stat_statements',
      // Nobody tidies up what could be tidied up: the worst that a look may meet.
      'autovacuum=off',
    ])
    await server.rows('create extension pg_stat_statements')
    const bus = testBus(server.url)
    const latencies: number[] = []
    let seen = 0
    bus.subscribe({
      name: 'seen',
      events: ['note'],
      ordered: keyCount !== undefined,
      handler: ({ payload }) => {
        seen += 1
        if (typeof payload === 'number') latencies.push(performance.timeOrigin + performance.now() - payload)
      },
    })
    await bus.start()
    const pool = new pg.Pool({ connectionString: server.url, max: 4 })
    pool.on('error', () => {})
    onTestFinished(async () => pool.end())
    let published = 0
    const publishAtRate = async (seconds: number): Promise<void> => {
      const beganAt = performance.now()
      const writes: Promise<unknown>[] = []
      for (let n = 0; n < rate * seconds; n += 1) {
        await pause(Math.max(0, beganAt + (n * 1000) / rate - performance.now()))
        published += 1
        writes.push(
          pool.query(
            `insert into bus.events (tenant_id, type, source, ordering_key, payload) values ('acme', 'note', 'pg', $1, to_jsonb($2::float8))`,
            [
              keyCount === undefined ? null : `k${published % keyCount}`,
              performance.timeOrigin + performance.now(),
            ],
          ),
        )
      }
      await Promise.all(writes)
      await until('they are delivered', () => seen === published)
    }
    const look = async (): Promise<{ readonly blocks: Blocks; readonly p50: number }> => {
      await server.rows('select pg_stat_statements_reset()')
      latencies.length = 0
      await publishAtRate(lookSeconds)
      return { blocks: await blocksOf(server), p50: median(latencies) }
    }
    await publishAtRate(warmUpSeconds)
    // As autovacuum does, within a minute of the first 500 jobs. Then statements are planned anew, and prepared.
    const [queue] = await server.rows(`select table_name from pgboss.queue where name = 'bus.seen'`)
    await server.rows(`analyze pgboss.${String(queue?.['table_name'])}`)
    await publishAtRate(warmUpSeconds)
    const before = await look()
    const holder = new pg.Client({ connectionString: server.url })
    await holder.connect()
    holder.on('error', () => {})
    onTestFinished(async () => holder.end())
    await holder.query('begin isolation level repeatable read')
    await holder.query('select txid_current()')
    await publishAtRate(burial.seconds)
    for (let n = 0; n < burial.events; n += 1000) {
      published += 1000
      await pool.query(
        `insert into bus.events (tenant_id, type, source, ordering_key, payload)
         select 'acme', 'note', 'pg', $1 || (n % 500), '"buried"' from generate_series(1, 1000) n`,
        [keyCount === undefined ? null : 'other '],
      )
    }
    await until('they are buried', () => seen === published)
    // The floors follow within a few seconds of traffic.
    await publishAtRate(isFullForm ? 1 : 4)
    const after = await look()
    const figure = (each: typeof before): string =>
      `${Object.entries(each.blocks)
        .filter(([, { calls }]) => calls > 0)
        .map(([kind, { calls, each: blocks }]) => `${kind} ${blocks.toFixed(0)} (${calls})`)
        .join(', ')}; p50 ${each.p50.toFixed(1)} ms`
    recordFigure(
      `blocks a statement, ${keyCount === undefined ? 'no key' : `${keyCount} keys`}, before a snapshot was held`,
      figure(before),
    )
    recordFigure(
      `blocks a statement, ${keyCount === undefined ? 'no key' : `${keyCount} keys`}, while a snapshot is held`,
      figure(after),
    )
    // What one claim sends: as much as before, and what the rows of the last tenths of a second cost. A claim of keys has to see
    // all that is not certain to be gone: that of the last second.
    const claimOf = ({ blocks }: typeof before): number =>
      blocks.claim.each + blocks.state.each + blocks.job.each + blocks.fetchDirectly.each
    const isFewKeys = isFullForm && keyCount === 50
    const bounds: readonly (readonly [what: string, blocks: number, bound: number])[] =
      keyCount === undefined
        ? [
            ['all of a claim', claimOf(after), 2 * claimOf(before) + 10],
            ['the fetch', after.blocks.fetchDirectly.each, 2 * before.blocks.fetchDirectly.each + 10],
          ]
        : [
            ['the claim', after.blocks.claim.each, 80],
            ...(isFewKeys ? [] : [['the state', after.blocks.state.each, 80] as const]),
          ]
    // pg-boss fetches from the first entry of its index on. Events without a key are mostly handed over with their claim instead.
    const factor = isFullForm && keyCount !== undefined ? 5 : 2
    const times = isFewKeys ? [] : [['p50 in ms', after.p50, factor * before.p50 + roomFor(10)] as const]
    for (const [what, value, bound] of [...bounds, ...times]) expect.soft(value, what).toBeLessThan(bound)
  },
)
