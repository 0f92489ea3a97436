import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, onTestFinished, test } from 'vitest'
import { faultPoints, type FaultPoint } from '../../src/foundation/fault-points.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { createEffects } from '../support/effects.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { checkHistory } from '../support/history.ts'
import { checkOrder, readOrder } from '../support/order-history.ts'
import { loadProgram, type LoadedProgram } from '../support/processes.ts'
import { inOrder, readTurns, turnsTable } from '../support/turns.ts'
import { makeSceneOfDeadWorkers, type Scene as DeadWorkers } from '../support/dead-workers.ts'
import { randomNumbers, randomOfTest } from '../support/random.ts'

/** What a process finds where it starts. */
type Scene = 'an empty database' | 'an unused schema' | 'jobs of dead workers'

function sceneOf(point: FaultPoint): Scene {
  if (point.startsWith('migrate.')) return 'an empty database'
  return point.startsWith('start.') ? 'an unused schema' : 'jobs of dead workers'
}

interface Stage {
  readonly database: TestDatabase
  readonly folder: string
}

async function openStage(scene: Scene): Promise<Stage> {
  const template = scene === 'jobs of dead workers' ? deadWorkers?.name : undefined
  const database = await createTestDatabase({ empty: scene === 'an empty database', template })
  if (template === undefined) {
    await createEffects(database)
    await database.rows('create table commits (key text, what text not null)')
    await database.rows(turnsTable)
  }
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-steps-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  return { database, folder }
}

const load = async ({ database, folder }: Stage, ...args: readonly string[]): Promise<LoadedProgram> =>
  loadProgram('step-process.ts', database.url, folder, ...args)

/** Resolves when nothing is left to deliver. Whoever is silent is dead: nobody waits for heartbeats here. */
async function untilDone({ rows, count }: TestDatabase): Promise<void> {
  await until(
    'everything is delivered',
    async () =>
      (await count(`select (select count(*) from bus.outbox) + (select count(*) from bus.ordered_events) + (select count(*) from bus.failing)
        + (select count(*) from pgboss.job where name like 'bus.%' and name not like '%.dead' and state < 'completed')`)) ===
      0,
  ).catch(async (error: unknown) => {
    const left = await rows(
      `select name, state, data, retry_count, start_after from pgboss.job where name like 'bus.%' and state < 'completed' limit 5`,
    )
    throw new Error(
      `left: ${JSON.stringify(left)}, keys: ${JSON.stringify(await rows('select * from bus.ordered_keys'))}`,
      { cause: error },
    )
  })
}

const nothingWrong = {
  lost: [] as readonly string[],
  withoutEffect: [] as readonly string[],
  doubledEffects: [] as readonly string[],
  invented: [] as readonly string[],
  outOfOrder: 0,
  orderedMissing: 0,
  /** Keys whose effects are not all there, once and in order. */
  wrongTurns: [] as readonly string[],
  eventsWithoutState: 0,
  /** Messages of another system that are not one event each. */
  wrongMessages: [] as readonly string[],
}

async function findingsOf({ database, folder }: Stage): Promise<typeof nothingWrong> {
  const read = async (suffix: string): Promise<string[]> =>
    Promise.all(
      (await readdir(folder))
        .filter((file) => file.endsWith(suffix))
        .map(async (file) => readFile(join(folder, file), 'utf8')),
    )
  const committed = await database.rows(`
    select what from commits where key is null
    union all select payload #>> '{}' from bus.events where type = 'note' and payload #>> '{}' like '%.tried'`)
  const effects = await database.rows('select what from effects')
  const { lost, withoutEffect, doubledEffects, invented } = checkHistory({
    committed: committed.map(({ what }) => String(what)),
    ran: (await read('.runs')).flatMap((text) => text.split('\n').filter((line) => line !== '')),
    effects: effects.map(({ what }) => String(what)),
  })
  const keys = await database.rows(
    'select key, count(*)::int as count from commits where key is not null group by key',
  )
  const turns = (await read('.order')).flatMap(readOrder)
  const order = keys.map(({ key, count }) =>
    checkOrder(
      turns.filter((line) => line.key === key),
      [String(key)],
      Number(count),
    ),
  )
  const effectsOfKeys = await readTurns(database)
  const wrongTurns = keys.flatMap(({ key, count }) => {
    const did = effectsOfKeys[String(key)] ?? ''
    return did === inOrder(Number(count)) ? [] : [`${String(key)}: ${did}`]
  })
  const eventCount = await database.count(
    `select count(*) from bus.events where type <> 'payment.refunded' and payload #>> '{}' not like '%.tried'`,
  )
  return {
    ...{ lost, withoutEffect, doubledEffects, invented },
    outOfOrder: order.reduce((sum, { outOfOrder, atOnce }) => sum + outOfOrder + atOnce, 0),
    orderedMissing: order.reduce((sum, { missing }) => sum + missing, 0),
    wrongTurns,
    eventsWithoutState: eventCount - (await database.count('select count(*) from commits')),
    wrongMessages: await wrongMessages(database),
  }
}

/** Every process gets the same two messages, of which the quarantine has had one. */
async function wrongMessages({ rows }: TestDatabase): Promise<readonly string[]> {
  const found = await rows(`
    select name, (select count(*) from bus.events where type = 'payment.refunded' and payload ->> 'paymentId' = name)::int as events,
      (select state || ' ' || cardinality(event_ids) from bus.quarantined_messages where message_id = name) as quarantined
    from unnest('{good,poison}'::text[]) name`)
  return found
    .map(({ name, events, quarantined }) => `${String(name)}: ${String(events)}, ${String(quarantined)}`)
    .filter((each) => each !== 'good: 1, null' && each !== 'poison: 1, stored 1')
}

let deadWorkers: DeadWorkers | undefined

beforeAll(async () => {
  deadWorkers = await makeSceneOfDeadWorkers(inject('serverUrl'), inject('templateDatabase'))
})
afterAll(async () => deadWorkers?.drop())

let counted: Promise<ReadonlyMap<FaultPoint, number>> | undefined

/** How often a process that lives comes by each point. Looked for once, by the test that asks first. */
async function pointCounts(): Promise<ReadonlyMap<FaultPoint, number>> {
  counted ??= (async () => {
    const counts = new Map<FaultPoint, number>()
    const scenes: readonly Scene[] = ['an empty database', 'jobs of dead workers']
    for (const seen of await Promise.all(scenes.map(countPoints)))
      for (const [point, count] of Object.entries(seen))
        counts.set(point as FaultPoint, Math.max(counts.get(point as FaultPoint) ?? 0, count))
    return counts
  })()
  return counted
}

test('a process that does everything the bus can comes by every fault point', async () => {
  expect([...(await pointCounts()).keys()].toSorted()).toEqual(faultPoints.toSorted())
})

/** Kills that go on at the same time: most of each is waiting. */
const killsAtOnce = 3

test.each(chosenPoints())(
  'a process killed at a step of $protocol loses nothing: $names',
  async ({ points }) => {
    // In the short form each is killed at once, the first time.
    const counts = isFullForm ? await pointCounts() : undefined
    const kills = points.flatMap((point) => {
      const count = counts?.get(point) ?? 1
      const times = isFullForm && count > 2 ? [1, Math.ceil(count / 2)] : [1]
      return times.map((nth) => ({ point, nth }))
    })
    const findings: Record<string, typeof nothingWrong> = {}
    await inTurn(kills, async ({ point, nth }) => {
      findings[`${point} ${nth}`] = await killAt(point, nth)
    })
    allFindings.push(...Object.values(findings))
    expect(findings).toEqual(
      Object.fromEntries(kills.map(({ point, nth }) => [`${point} ${nth}`, nothingWrong])),
    )
  },
)

const allFindings: (typeof nothingWrong)[] = []

afterAll(() => {
  const sum = (count: (findings: typeof nothingWrong) => number): number =>
    allFindings.reduce((total, findings) => total + count(findings), 0)
  recordFigure(
    'every step of relay and worker protocol killed in turn (fault points by name)',
    `${faultPoints.length} fault points, ${allFindings.length} kills: lost ${sum(({ lost, withoutEffect, orderedMissing }) => lost.length + withoutEffect.length + orderedMissing)}, ` +
      `effect duplicates ${sum(({ doubledEffects }) => doubledEffects.length)}, order violations ${sum(({ outOfOrder, wrongTurns }) => outOfOrder + wrongTurns.length)}`,
  )
})

/** All fault points by protocol; in the short form, two of them by chance. */
function chosenPoints(): readonly {
  readonly protocol: string
  readonly names: string
  readonly points: readonly FaultPoint[]
}[] {
  const left = [...faultPoints]
  const random = isFullForm ? randomNumbers() : randomOfTest()
  const chosen = isFullForm
    ? left
    : Array.from({ length: 2 }, () => left.splice(Math.floor(random() * left.length), 1)).flat()
  const protocols = Map.groupBy(chosen, (point) => point.split('.')[0] ?? '')
  return [...protocols].map(([protocol, points]) => ({ protocol, names: points.join(', '), points }))
}

/** Works on all of them, a few at a time. */
async function inTurn<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items]
  await Promise.all(
    Array.from({ length: killsAtOnce }, async () => {
      for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
    }),
  )
}

async function countPoints(scene: Scene): Promise<Record<string, number>> {
  const stage = await openStage(scene)
  const program = await load(stage, 'none')
  program.begin()
  expect([await program.exited, ...program.output]).toEqual([
    0,
    'loaded',
    'started',
    expect.stringContaining('{'),
  ])
  return JSON.parse(program.output.at(-1) ?? '{}') as Record<string, number>
}

/** Kills a process there and lets another one take over. Gives what that history shows. */
async function killAt(point: FaultPoint, nth: number): Promise<typeof nothingWrong> {
  const stage = await openStage(sceneOf(point))
  const { database, folder } = stage
  const [victim, heir] = await Promise.all([load(stage, point, String(nth)), load(stage)])
  victim.begin()
  await victim.exited
  expect(
    await readFile(join(folder, 'killed'), 'utf8').catch(() => `never came by: ${victim.output.join()}`),
  ).toBe(`${point}\n`)
  expect(victim.child.signalCode).toBe('SIGKILL')
  await lapseHeartbeats(database)
  heir.begin()
  await heir.says('published')
  await untilDone(database)
  heir.child.kill('SIGTERM')
  // With the signal that ended it and how far it came, so that a failure tells a stop that hangs from one that never began.
  expect([await heir.exited, heir.child.signalCode, ...heir.output]).toEqual([
    ...[0, null],
    ...['loaded', 'started', 'published', 'stopping', 'stopped'],
  ])
  return findingsOf(stage)
}

async function lapseHeartbeats({ rows }: TestDatabase): Promise<void> {
  const [there] = await rows(`select to_regclass('pgboss.job') is not null as there`)
  if (there?.['there'] === true)
    await rows(`update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`)
}
