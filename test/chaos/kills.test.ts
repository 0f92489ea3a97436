import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { createEffects } from '../support/effects.ts'
import { isFullForm } from '../support/form.ts'
import { checkHistory } from '../support/history.ts'
import { startOwnServer, type OwnServer } from '../support/own-server.ts'
import { openTransact } from '../support/transact.ts'

/** The figures of the two forms. The short one has no time for heartbeats to lapse: it makes them. */
const form = isFullForm
  ? {
      eventCount: 100_000,
      killingMs: 60_000,
      maxKills: Infinity,
      spareCount: 4,
      serverKills: 5,
      drainMs: 240_000,
    }
  : { eventCount: 4000, killingMs: 3000, maxKills: 3, spareCount: 3, serverKills: 1, drainMs: 60_000 }

const processCount = 4
const writerCount = 8

/** Events that one worker may have handled and not settled: the batches of one fetch. */
const maxRepeatsPerKill = 800

const program = fileURLToPath(new URL('../support/killed-process.ts', import.meta.url))

interface Fleet {
  readonly killOne: () => Promise<void>
  /** Ends the rest in good order. */
  readonly end: () => Promise<void>
}

/** Four processes that deliver, and some that are loaded already to take the place of the next that is killed. */
async function startFleet(url: string, folder: string): Promise<Fleet> {
  const everyone = new Set<ChildProcess>()
  onTestFinished(() => {
    for (const child of everyone) child.kill('SIGKILL')
  })
  const load = async (): Promise<ChildProcess> => {
    const child = spawn(process.execPath, [program, url, folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
      // Loading is what a replacement takes longest for.
      env: { ...process.env, NODE_COMPILE_CACHE: join(folder, 'cache') },
    })
    everyone.add(child)
    child.stdin.on('error', () => {})
    await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()))
    return child
  }
  const begin = (child: ChildProcess): ChildProcess => {
    child.stdin?.write('start\n')
    return child
  }
  const running = (await Promise.all(Array.from({ length: processCount }, load))).map(begin)
  const spares = Array.from({ length: form.spareCount }, load)
  await Promise.all(spares)
  return {
    async killOne() {
      const heir = spares.shift()
      if (isFullForm) spares.push(load())
      if (heir !== undefined) running.push(begin(await heir))
      const [victim] = running.splice(Math.floor(Math.random() * processCount), 1)
      victim?.kill('SIGKILL')
    },
    async end() {
      for (const child of await Promise.all(spares)) child.kill('SIGKILL')
      await Promise.all(
        running.map(async (child) => {
          const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
          child.kill('SIGTERM')
          expect(await exited).toBe(0)
        }),
      )
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
      30_000,
    )
    times.push(Math.round(performance.now() - startedAt))
  }
  return times
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
      30_000,
    )

    const startedAt = performance.now()
    const writers = startWriters(server.url)
    const serverKills = killServers(server)
    let kills = 0
    while (kills < form.maxKills && performance.now() - startedAt < form.killingMs) {
      await pause(200 + Math.random() * 600)
      await fleet.killOne()
      kills += 1
    }
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
    const files = await Promise.all(
      (await readdir(folder))
        .filter((file) => file.endsWith('.runs'))
        .map(async (file) => readFile(join(folder, file), 'utf8')),
    )
    const ran = files.flatMap((text) => text.split('\n').filter((line) => line !== ''))
    const effects = (await server.rows('select what from effects')).map(({ what }) => String(what))
    const findings = checkHistory({ committed, ran, effects })
    console.log(
      [
        `${findings.committedCount} events committed in ${Math.round(publishedMs / 1000)} s, all delivered after ${Math.round(deliveredMs / 1000)} s`,
        `${kills} processes killed, one every ${Math.round(killingMs / kills)} ms, the server killed ${recoveries.length} times: delivering again after ${recoveries.join(', ')} ms`,
        `lost ${findings.lost.length}, effects missing ${findings.withoutEffect.length}, effects doubled ${findings.doubledEffects.length}`,
        `the at-least-once handler ran ${findings.repeatedRunCount} times more than once (${(findings.repeatedRunCount / kills).toFixed(1)} a kill)`,
      ].join('\n'),
    )
    expect(findings).toMatchObject({ lost: [], withoutEffect: [], doubledEffects: [], invented: [] })
    expect(findings.committedCount).toBeGreaterThanOrEqual(form.eventCount)
    expect(findings.repeatedRunCount).toBeLessThanOrEqual(kills * maxRepeatsPerKill)
    expect(await server.count(`select count(*) from pgboss.job where name like 'bus.%.dead'`)).toBe(0)
  },
)
