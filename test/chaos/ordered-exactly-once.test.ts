// @module-tag slow
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'
import { inOrder, readTurns, turnsTable } from '../support/turns.ts'

const keyCount = isFullForm ? 500 : 40
const eventsPerKey = isFullForm ? 100 : 15
const killCount = isFullForm ? 10 : 2
const total = keyCount * eventsPerKey
const keys = Array.from({ length: keyCount }, (_, k) => `k${k}`)

const start = async ({ url }: TestDatabase): Promise<ProgramProcess> =>
  startProgram('ordered-once-process.ts', url)

const delivered = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

/** Makes every worker look dead, also those that live: what half a minute of silence does. */
async function lapseHeartbeats({ rows }: TestDatabase): Promise<void> {
  await rows(`update pgboss.job set heartbeat_on = now() - interval '1 hour'
    where name = 'bus.both' and state = 'active'`)
}

/** Four writers, each with keys of its own; never far ahead of what is delivered, so that the kills hit events in hand. */
async function publishAll(database: TestDatabase): Promise<void> {
  const publisher = testBus(database.url)
  let published = 0
  await Promise.all(
    Array.from({ length: 4 }, async (_, writer) => {
      const own = keys.filter((_key, k) => k % 4 === writer)
      for (let number = 0; number < eventsPerKey; number += 1) {
        const notes = own.map(
          (orderingKey) => ({ type: 'note', tenantId: 'acme', orderingKey, payload: number }) as const,
        )
        await database.db.transaction(async (tx) => publisher.publishMany(tx, notes))
        published += own.length
        await until(
          'the backlog is small',
          async () => published - (await delivered(database)) < total / 3,
          120_000,
        )
      }
    }),
  )
}

test(
  `processes that are killed, or taken for dead while they live, make each effect of ${keyCount} keys once, and in order`,
  { timeout: isFullForm ? 900_000 : 240_000 },
  async () => {
    const database = await createTestDatabase({ max: 8 })
    await database.rows(turnsTable)
    const processes = await Promise.all(Array.from({ length: 4 }, async () => start(database)))
    const startedAt = performance.now()
    const publishing = publishAll(database)
    const heirs: Promise<ProgramProcess>[] = []
    for (let kills = 0; kills < killCount; kills += 1) {
      const mark = ((kills + 0.5) * total) / (killCount + 1)
      await until('more is delivered', async () => (await delivered(database)) > mark, 300_000)
      const victim = processes.shift()
      victim?.child.kill('SIGKILL')
      await victim?.exited
      await lapseHeartbeats(database)
      const heir = start(database)
      heirs.push(heir)
      processes.push(await heir)
    }
    await publishing
    // Whoever was killed last is not heard of for 30 s: do not wait for it here.
    await lapseHeartbeats(database)
    await until('all are delivered', async () => (await delivered(database)) === total, 300_000)
    const seconds = (performance.now() - startedAt) / 1000
    for (const { child, exited } of processes) {
      child.kill('SIGTERM')
      expect(await exited).toBe(0)
    }
    const turns = await readTurns(database)
    const wrong = keys.filter((key) => turns[key] !== inOrder(eventsPerKey))
    const effectCount = await database.count('select count(*) from turns')
    const failedCount = await database.count('select sum(attempts) - count(*) from bus.deliveries')
    const figure = `${failedCount} attempts failed or died, ${killCount} kills; lost ${total - (await delivered(database))}, effects doubled ${effectCount - total}, keys out of order ${wrong.length}; ${seconds.toFixed(1)} s`
    console.log(`ordered and exactly once: ${total} events of ${keyCount} keys, ${figure}`)
    recordFigure(
      `${keyCount} keys x ${eventsPerKey} events, ordered and exactly once, 4 processes, 10 % of attempts failing, SIGKILL and silence`,
      figure,
    )
    expect(Object.fromEntries(wrong.map((key) => [key, turns[key]]))).toEqual({})
    expect(effectCount).toBe(total)
    expect(failedCount).toBeGreaterThan(total / 50)
    expect(
      await database.rows(
        `select count(*)::int as all, count(distinct payload)::int as different from bus.events where type = 'payment.refunded'`,
      ),
    ).toEqual([{ all: total, different: total }])
    expect(await database.count('select count(*) from bus.ordered_keys')).toBe(0)
    expect(await database.count('select count(*) from bus.ordered_events')).toBe(0)
    expect(await database.count('select count(*) from bus.outbox')).toBe(0)
    expect(await database.count(`select count(*) from pgboss.job where name = 'bus.both.dead'`)).toBe(0)
  },
)
