// @module-tag slow
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { createEffects } from '../support/effects.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { checkHistory } from '../support/history.ts'
import { startOwnServer, type OwnServer } from '../support/own-server.ts'
import { loadProgram, type LoadedProgram } from '../support/processes.ts'
import { openTransact } from '../support/transact.ts'
import { roomFor } from '../support/slowness.ts'
import { randomOfTest } from '../support/random.ts'

const random = randomOfTest()

/** The figures of the two forms. The short one has no time for heartbeats to lapse: it makes them. */
const form = isFullForm
  ? {
      eventCount: 100_000,
      killingMs: 60_000,
      maxKills: Infinity,
      spareCount: 6,
      serverKills: 5,
      drainMs: 240_000,
    }
  : { eventCount: 2500, killingMs: 3000, maxKills: 2, spareCount: 2, serverKills: 1, drainMs: 60_000 }

const processCount = 4

/** From when the server accepts connections again. */
const maxRecoveryMs = 5000
const writerCount = 8

/** Jobs that a worker has in hand at most, and events of each: what it may have handled, and not settled, when it is killed. */
const maxRepeatsPerKill = 64 * 100

interface Fleet {
  /** Kills one of those that deliver, at the moment its heir begins. Gives its process id. */
  readonly killOne: () => Promise<number>
  /** Ends the rest in good order. */
  readonly end: () => Promise<void>
}

/** Four processes that deliver, and some that are loaded already to take the place of the next that is killed. */
async function startFleet(url: string, folder: string): Promise<Fleet> {
  const load = async (): Promise<LoadedProgram> => loadProgram('killed-process.ts', url, folder)
  const spares = Array.from({ length: processCount + form.spareCount }, load)
  await Promise.all(spares)
  const running = await Promise.all(spares.splice(0, processCount))
  for (const { begin } of running) begin()
  return {
    async killOne() {
      const heir = await spares.shift()
      if (isFullForm) spares.push(load())
      heir?.begin()
      const [victim] = running.splice(Math.floor(random() * processCount), 1)
      if (heir !== undefined) running.push(heir)
      victim?.child.kill('SIGKILL')
      return victim?.child.pid ?? 0
    },
    async end() {
      for (const { child } of await Promise.all(spares)) child.kill('SIGKILL')
      for (const { child } of running) child.kill('SIGTERM')
      expect(await Promise.all(running.map(async ({ exited }) => exited))).toEqual(running.map(() => 0))
    },
  }
}

/** Writers that publish with their business state until enough is committed; every fifth transaction is rolled back. */
function startWriters(url: string): { readonly committed: () => number; readonly done: Promise<void>[] } {
  const publisher = testBus(url)
  const transact = openTransact(url, writerCount)
  const startedAt = performance.now()
  let committed = 0
  const done = Array.from({ length: writerCount }, async (_, writer) => {
    for (let n = 0; committed < form.eventCount; n += 1) {
      const name = `${writer}.${n}`
      const size = 1 + ((n * 7 + writer * 13) % 60)
      const isRolledBack = n % 5 === 4
      const notes = Array.from(
        { length: size },
        (_event, i) => ({ type: 'note', tenantId: 'a', payload: `${name}.${i}` }) as const,
      )
      await transact(async (tx) => {
        await tx.execute(sql`insert into commits values (${name}, ${size})`)
        await publisher.publishMany(tx, notes)
        if (isRolledBack) throw new Error('rolled back')
      }).then(
        () => (committed += size),
        // The commit may have happened all the same: the table tells.
        async () => pause(isRolledBack ? 0 : 50),
      )
      // Spread over the time of the kills.
      const share = ((performance.now() - startedAt) / form.killingMs) * form.eventCount
      if (committed > share)
        await pause(Math.min(200, ((committed - share) / form.eventCount) * form.killingMs))
    }
  })
  return { committed: () => committed, done }
}

/** Kills and starts the server again, spread over the time of the kills. Gives how long it took to deliver again. */
async function killServers(server: OwnServer): Promise<number[]> {
  const times: number[] = []
  for (let kills = 0; kills < form.serverKills; kills += 1) {
    await pause(form.killingMs / (form.serverKills + 1))
    await server.kill()
    await server.restart()
    const startedAt = performance.now()
    const before = await server.count('select count(*) from bus.deliveries')
    await until(
      'deliveries go on',
      async () => (await server.count('select count(*) from bus.deliveries')) > before,
    )
    times.push(Math.round(performance.now() - startedAt))
  }
  return times
}

/** How many events each killed process had handled that were handled again, by another or by a later attempt. */
function repeatsOf(runsOf: ReadonlyMap<number, readonly string[]>, killed: ReadonlySet<number>): number[] {
  const handlers = new Map<string, number>()
  for (const name of [...runsOf.values()].flat()) handlers.set(name, (handlers.get(name) ?? 0) + 1)
  return [...killed].map(
    (pid) => (runsOf.get(pid) ?? []).filter((name) => (handlers.get(name) ?? 0) > 1).length,
  )
}

async function untilDelivered(server: OwnServer): Promise<void> {
  let last = -1
  await until(
    'everything is delivered',
    async () => {
      const [row] = await server.rows(
        `select (select coalesce(sum(size), 0)::int from commits) as committed, (select count(*)::int from bus.deliveries) as receipts`,
      )
      const receipts = Number(row?.['receipts'])
      // Whatever is still in hand belongs to the dead.
      if (!isFullForm && receipts === last) {
        await server.rows(
          `update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`,
        )
      }
      last = receipts
      await pause(isFullForm ? 250 : 1000)
      return receipts === Number(row?.['committed']) * 2
    },
    form.drainMs,
  )
}

test(
  'processes and the server are killed at random while events are published: none is lost, each effect is there once',
  { timeout: 400_000 },
  async () => {
    const server = await startOwnServer()
    await createEffects(server as never)
    await server.rows('create table commits (name text primary key, size int not null)')
    const folder = await mkdtemp(join(tmpdir(), 'bossbus-runs-'))
    onTestFinished(async () => rm(folder, { recursive: true, force: true }))
    const fleet = await startFleet(server.url, folder)
    await until(
      'the subscriptions are there',
      async () => (await server.count('select count(*) from bus.subscriptions')) === 2,
    )

    const startedAt = performance.now()
    const writers = startWriters(server.url)
    const serverKills = killServers(server)
    const killed = new Set<number>()
    let nextKillAt = startedAt
    while (killed.size < form.maxKills && performance.now() - startedAt < form.killingMs) {
      nextKillAt = Math.max(performance.now(), nextKillAt + 200 + random() * 600)
      await pause(nextKillAt - performance.now())
      killed.add(await fleet.killOne())
    }
    const kills = killed.size
    const killingMs = performance.now() - startedAt
    const recoveries = await serverKills
    await Promise.all(writers.done)
    const publishedMs = performance.now() - startedAt
    await untilDelivered(server)
    const deliveredMs = performance.now() - startedAt
    await fleet.end()

    const commits = await server.rows('select name, size from commits')
    const committed = commits.flatMap(({ name, size }) =>
      Array.from({ length: Number(size) }, (_, i) => `${String(name)}.${i}`),
    )
    const runsOf = new Map<number, string[]>()
    for (const file of (await readdir(folder)).filter((name) => name.endsWith('.runs'))) {
      const text = await readFile(join(folder, file), 'utf8')
      runsOf.set(
        Number.parseInt(file, 10),
        text.split('\n').filter((line) => line !== ''),
      )
    }
    const ran = [...runsOf.values()].flat()
    const effects = (await server.rows('select what from effects')).map(({ what }) => String(what))
    const findings = checkHistory({ committed, ran, effects })
    const repeats = repeatsOf(runsOf, killed)
    const most = Math.max(...repeats)
    recordFigure(
      `4 processes, SIGKILL every ${Math.round(killingMs / kills)} ms on average for ${Math.round(killingMs / 1000)} s while 8 writers publish, a fifth of the transactions rolled back`,
      `${findings.committedCount} committed in ${Math.round(publishedMs / 1000)} s, all delivered after ${Math.round(deliveredMs / 1000)} s; ${kills} kills; lost ${findings.lost.length}, ` +
        `rolled back but delivered ${findings.invented.length}; effects of the exactly-once handler missing ${findings.withoutEffect.length}, doubled ${findings.doubledEffects.length}; ` +
        `the at-least-once handler ran ${findings.repeatedRunCount} times more than once: ${(findings.repeatedRunCount / kills).toFixed(1)} a kill, ${most} at most`,
    )
    recordFigure(
      `PostgreSQL killed (-9) and restarted ${recoveries.length} times meanwhile`,
      `the same; delivering again ${recoveries.join(', ')} ms after it accepts connections`,
    )
    console.log(
      `${findings.committedCount} events committed in ${Math.round(publishedMs / 1000)} s, all delivered after ${Math.round(deliveredMs / 1000)} s; ` +
        `${kills} kills, one every ${Math.round(killingMs / kills)} ms; delivering again after ${recoveries.join(', ')} ms; ` +
        `${findings.repeatedRunCount} repeated runs, ${most} at most of one process`,
    )
    expect(findings).toMatchObject({ lost: [], withoutEffect: [], doubledEffects: [], invented: [] })
    expect(findings.committedCount).toBeGreaterThanOrEqual(form.eventCount)
    expect(most).toBeLessThanOrEqual(maxRepeatsPerKill)
    expect(Math.max(...recoveries)).toBeLessThan(roomFor(maxRecoveryMs))
    expect(await server.count(`select count(*) from pgboss.job where name like 'bus.%.dead'`)).toBe(0)
  },
)
