// @module-tag slow
import { expect, test } from 'vitest'
import { createClaimFloors } from '../../../src/outbox/relay/claim-floors.ts'
import { claimSql, dueClaimSql, heldClaimSql, orderedClaimSql } from '../../../src/outbox/relay/claim-sql.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { openSession, type Session } from '../../support/session.ts'

/** Blocks that a statement may read which finds, locks and deletes twenty rows of a kind or two, whatever else is there. */
const boundBlocks = 500

interface Explained {
  readonly statement: string
  readonly blocks: number
  /** What the plan reads from beginning to end, or sorts out of more than it needs. */
  readonly wide: readonly string[]
}

type Plan = Readonly<Record<string, unknown>>

function nodesOf(plan: Plan): readonly Plan[] {
  return [plan, ...((plan['Plans'] ?? []) as Plan[]).flatMap(nodesOf)]
}

/** Runs the statements of a claim, each explained, and rolls them back. */
async function explain(session: Session, statements: string): Promise<Explained[]> {
  const explained: Explained[] = []
  for (const statement of statements.split(/;\s*\n/).map((text) => text.trim())) {
    if (statement === '') continue
    if (!/from bus\./.test(statement)) {
      await session.rows(statement)
      continue
    }
    const [row] = await session.rows(`explain (analyze, buffers, format json) ${statement}`)
    const [{ Plan: plan }] = (row ?? {})['QUERY PLAN'] as [{ Plan: Plan }]
    const wide = nodesOf(plan).filter(
      (node) =>
        node['Relation Name'] === 'outbox' &&
        (/Seq Scan|Bitmap/.test(String(node['Node Type'])) ||
          Number(node['Rows Removed by Filter'] ?? 0) > 50),
    )
    explained.push({
      statement: statement.slice(0, 60),
      blocks: Number(plan['Shared Hit Blocks']) + Number(plan['Shared Read Blocks']),
      wide: wide.map(
        (node) => `${String(node['Node Type'])} ${(node['Index Name'] as string | undefined) ?? ''}`,
      ),
    })
  }
  await session.rows('rollback')
  return explained
}

const scheduledCount = 200_000

/** Scheduled events of the next month, a quarter of them with keys, and twenty of each kind that are ready. */
async function fill({ rows }: TestDatabase): Promise<void> {
  await rows(
    `insert into bus.outbox (position, event_id, tenant_id, type, ordering_key, available_at) overriding system value
     select nextval('bus.outbox_position_seq') + 4611686018427387904, bus.uuid_v7(), 'acme', 'note',
       case when n % 4 = 0 then 'k' || n end, now() + interval '1 day' + n * interval '1 second'
     from generate_series(1, $1::int) n`,
    [scheduledCount],
  )
  await rows(
    `insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, available_at, subscription_id)
     overriding system value
     select nextval('bus.outbox_position_seq') + k.base, bus.uuid_v7(), 'acme', 'note', 10, case when k.keyed then 'k' || n end,
       case when k.due then now() - interval '1 minute' end, k.subscription_id
     from generate_series(1, 20) n, (values
       (0, false, false, null::int),
       (2305843009213693952, true, false, null),
       (4611686018427387904, false, true, null),
       (4611686018427387904, true, true, null),
       (-4611686018427387904, true, false, 1),
       (-4611686018427387904, false, false, 1)) k (base, keyed, due, subscription_id)`,
  )
}

async function explainAll(database: TestDatabase, session: Session): Promise<Explained[]> {
  const floor = createClaimFloors().next(undefined)
  const [scheduled] = await database.rows(
    `select id from bus.events where available_at is not null order by id limit 1`,
  )
  return [
    ...(await explain(session, claimSql(floor, 'normal'))),
    ...(await explain(
      session,
      claimSql({ ...floor, level: 'recent', position: 1n, orderedPosition: 1n, server: '1' }, 'normal'),
    )),
    ...(await explain(session, dueClaimSql(floor, 'normal'))),
    ...(await explain(session, orderedClaimSql(floor, 'normal'))),
    ...(await explain(session, heldClaimSql(1, undefined))),
    ...(await explain(session, `begin;\nselect c from bus.cancel('${String(scheduled?.['id'])}') c;`)),
    ...(await explain(
      session,
      `begin;
select key_id from bus.enqueue_ordered(2, 100, 1000000, array['acme', 'acme'], array['a', 'b'],
  array[bus.uuid_v7(), bus.uuid_v7()], array[1, 1], array['note', 'note'], false, true);`,
    )),
  ]
}

test('every statement of the relay reads what it needs and no more, whatever the statistics say of 200,000 scheduled events', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await database.rows('alter table bus.outbox set (autovacuum_enabled = off)')
  await database.rows('alter table bus.ordered_keys set (autovacuum_enabled = off)')
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, available_at) values ('acme', 'note', 'sql', '1', now() + interval '2 days')`,
  )
  await database.rows(
    `insert into bus.ordered_keys (subscription_id, key_hash, tenant_id, ordering_key, state, failed_event_id)
       select 2, bus.ordering_key_hash('acme', 'other' || n), 'acme', 'other' || n, 'blocked', bus.uuid_v7() from generate_series(1, 5000) n`,
  )
  await fill(database)
  const expectNarrow = async (when: string): Promise<void> => {
    // The first time, functions are planned too.
    await explainAll(database, session)
    const explained = await explainAll(database, session)
    expect(explained.length).toBeGreaterThan(10)
    for (const each of explained) {
      expect.soft(each.wide, `${when}: ${each.statement}`).toEqual([])
      // What is called seldom is planned anew, which reads some hundred blocks of the catalogue.
      const bound = each.statement.includes('bus.cancel') ? 3 * boundBlocks : boundBlocks
      expect.soft(each.blocks, `${when}: ${each.statement}`).toBeLessThan(bound)
    }
  }
  await expectNarrow('never analysed')
  await database.rows('analyze bus.outbox')
  await database.rows('analyze bus.ordered_keys')
  await expectNarrow('analysed when it was full')
  const [kept] = await database.rows(
    'select event_id from bus.outbox where event_id in (select id from bus.events)',
  )
  await database.rows('create table kept as select * from bus.outbox where event_id = $1', [
    kept?.['event_id'],
  ])
  await database.rows('delete from bus.outbox')
  await database.rows('vacuum analyze bus.outbox')
  await database.rows('insert into bus.outbox overriding system value select * from kept')
  await fill(database)
  await expectNarrow('analysed when it was empty')
  expect(await database.count('select count(*) from bus.outbox')).toBe(scheduledCount + 121)
})
