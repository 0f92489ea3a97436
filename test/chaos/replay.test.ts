import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import type { FaultPoint } from '../../src/foundation/fault-points.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { isFullForm } from '../support/form.ts'
import { loadProgram, type ProgramProcess } from '../support/processes.ts'
import { randomOfTest } from '../support/random.ts'

/** More than one part of an operation takes. */
const eventCount = isFullForm ? 1500 : 510
/** Published while a catch-up goes on. */
const liveCount = isFullForm ? 1500 : 90
/** All of them; in the short form one, by chance. */
function chosen(points: readonly FaultPoint[]): readonly FaultPoint[] {
  return isFullForm ? points : points.slice(Math.floor(randomOfTest()() * points.length)).slice(0, 1)
}

const names = ['plain', 'once', 'turns'] as const

interface Stage {
  readonly database: TestDatabase
  readonly folder: string
}

async function openStage(): Promise<Stage> {
  const database = await createTestDatabase()
  // `n` says in which order the transactions wrote.
  await database.rows(
    'create table did (name text, replay_id text, event_id uuid, key text, n bigint generated always as identity)',
  )
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-replay-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  return { database, folder }
}

const publish = async ({ rows }: TestDatabase, count: number): Promise<unknown> =>
  rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key)
     select 'acme', 'note', 'sql', to_jsonb(n), 'k' || n % 9 from generate_series(1, $1::int) n`,
    [count],
  )

/** Resolves when the condition holds. Nobody waits for heartbeats here: once the victim is dead, so is whatever is in hand. */
async function untilTakenOver(
  { rows }: TestDatabase,
  victim: ProgramProcess,
  what: string,
  holds: () => Promise<boolean>,
): Promise<void> {
  let isLapsed = false
  await until(what, async () => {
    if (await holds()) return true
    if (!isLapsed && victim.child.signalCode !== null) {
      isLapsed = true
      await rows(`update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`)
    }
    await pause(100)
    return false
  })
}

async function killedAt(folder: string): Promise<string> {
  return readFile(join(folder, 'killed'), 'utf8').catch(() => 'never came by')
}

/** How often each handler has taken effect for each event; only those that did not do so once. */
async function wrongEffects({ rows }: TestDatabase, replayId: string): Promise<unknown[]> {
  return rows(
    `select s.name, e.id, count(d.n)::int as n from bus.events e cross join (values ('once'), ('turns')) s (name)
     left join did d on d.name = s.name and d.event_id = e.id and d.replay_id = $1
     group by 1, 2 having count(d.n) <> 1`,
    [replayId],
  )
}

/** Pairs of events of a key that took effect in another order than that of the log. */
async function outOfOrder({ count }: TestDatabase, replayId: string): Promise<number> {
  return count(
    `select count(*) from (
       select event_id, lag(event_id) over (partition by key order by n) as before from did where name = 'turns' and replay_id = $1
     ) d where before > event_id`,
    [replayId],
  )
}

/** A bus of the test's own that starts nothing. */
const operator = (database: TestDatabase): PaymentBus => testBus(database.url)

const replayPoints: readonly FaultPoint[] = [
  'operation.locked',
  'operation.part-written',
  'operation.part-committed',
  'settle.receipts-inserted',
  'settle.committed',
  'exactly-once.receipts-inserted',
  'exactly-once.committed',
  'exactly-once-ordered.next-inserted',
  'exactly-once-ordered.committed',
]

test.for(chosen(replayPoints))(
  'a process killed at %s loses and doubles nothing of a replay',
  async (point) => {
    const { database, folder } = await openStage()
    const heir = await loadProgram('replay-process.ts', database.url, folder, 'now')
    heir.begin()
    await heir.says('started')
    await publish(database, eventCount)
    const receipts = async (): Promise<number> => database.count('select count(*) from bus.deliveries')
    await until('all are delivered', async () => (await receipts()) === 3 * eventCount)
    const victim = await loadProgram('replay-process.ts', database.url, folder, 'now', point, '2')
    victim.begin()
    const bus = operator(database)
    const { id } = await bus.replay({ type: 'note', subscriptions: names, by: 'ana' })
    await untilTakenOver(
      database,
      victim,
      'the replay is over',
      async () => (await bus.operations.get(id)).state === 'done',
    )
    expect(['never came by', `${point}\n`]).toContain(await killedAt(folder))
    expect((await bus.operations.get(id)).counts).toMatchObject({
      selected: eventCount,
      enqueued: 3 * eventCount,
      delivered: 3 * eventCount,
    })
    expect(await wrongEffects(database, 'live')).toEqual([])
    expect(await wrongEffects(database, id)).toEqual([])
    expect(await outOfOrder(database, id)).toBe(0)
    expect(await receipts()).toBe(3 * eventCount)
    expect(
      await database.count(`select count(*) from bus.replays r cross join bus.events e
      where not exists (select from bus.received_events(r.id, array[e.id]))`),
    ).toBe(0)
  },
)

const catchUpPoints: readonly FaultPoint[] = [
  'start.catch-up-begun',
  'operation.part-written',
  'operation.part-committed',
  'exactly-once.committed',
  'settle.committed',
]

test.for(chosen(catchUpPoints))(
  'a process killed at %s loses and doubles nothing of a catch-up',
  async (point) => {
    const { database, folder } = await openStage()
    const relay = testBus(database.url)
    relay.subscribe({ name: 'before', events: ['**'], handler: () => {} })
    await relay.start()
    await publish(database, eventCount)
    const [victim, heir] = await Promise.all([
      loadProgram(
        'replay-process.ts',
        database.url,
        folder,
        'beginning',
        point,
        point.startsWith('start.') ? '1' : '2',
      ),
      loadProgram('replay-process.ts', database.url, folder, 'beginning'),
    ])
    victim.begin()
    await victim.exited
    expect(await killedAt(folder)).toBe(`${point}\n`)
    heir.begin()
    await heir.says('started')
    await publish(database, liveCount)
    const total = eventCount + liveCount
    await untilTakenOver(
      database,
      victim,
      'all are delivered',
      async () => (await database.count('select count(*) from bus.deliveries')) >= 4 * total,
    )
    expect(
      await database.rows(`select s.name, d.event_id, count(*)::int as n
      from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id group by 1, 2 having count(*) <> 1`),
    ).toEqual([])
    expect(await wrongEffects(database, 'live')).toEqual([])
    expect(await outOfOrder(database, 'live')).toBe(0)
    const operations = await relay.operations.list({ kind: 'catch-up' })
    expect(operations.map(({ state }) => state)).toEqual(['done', 'done', 'done'])
  },
)
