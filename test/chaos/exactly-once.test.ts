// @module-tag slow
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { countEffects, createEffects } from '../support/effects.ts'
import { isFullForm } from '../support/form.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

async function openDatabase(): Promise<TestDatabase> {
  const database = await createTestDatabase({ max: 8 })
  await createEffects(database)
  await database.rows('create table counters (n int)')
  await database.rows('insert into counters values (0)')
  return database
}

const start = async ({ url }: TestDatabase): Promise<ProgramProcess> =>
  startProgram('exactly-once-process.ts', url)

/** Makes every worker look dead, also those that live: what half a minute of silence does. */
async function lapseHeartbeats({ rows }: TestDatabase): Promise<void> {
  await rows(`update pgboss.job set heartbeat_on = now() - interval '1 hour'
    where name = 'bus.once' and state = 'active'`)
}

const delivered = async (database: TestDatabase): Promise<number> => (await countEffects(database)).receipts

test('a process killed between an effect and its commit leaves nothing, and the next one makes it once', async () => {
  const database = await openDatabase()
  const victim = await start(database)
  const publisher = testBus(database.url)
  await database.db.transaction(async (tx) => publisher.publishMany(tx, ['a', 'hold', 'b'].map(note)))
  await victim.says('holding')
  victim.child.kill('SIGKILL')
  await victim.exited
  // On a busy machine one of the others may have been committed meanwhile, in a transaction of its own.
  const { receipts, effects } = await countEffects(database)
  expect(effects).toBe(receipts)
  expect(await database.count(`select count(*) from effects where what = 'hold'`)).toBe(0)
  await lapseHeartbeats(database)
  const heir = await start(database)
  await until('all are delivered', async () => (await delivered(database)) === 3)
  heir.child.kill('SIGTERM')
  expect(await heir.exited).toBe(0)
  expect(await countEffects(database)).toEqual({ receipts: 3, effects: 3, distinct: 3 })
  expect(await database.rows('select n from counters')).toEqual([{ n: 1 }])
  expect(await database.count(`select count(*) from bus.events where type = 'payment.refunded'`)).toBe(3)
})

test.each([
  ['alone', ['hold']],
  ['in a batch', ['a', 'hold', 'b']],
])(
  'a process that is stopped in a handler, its event %s, keeps nobody waiting, and cannot commit when it goes on',
  async (_how, payloads) => {
    const database = await openDatabase()
    const zombie = await start(database)
    const publisher = testBus(database.url)
    await database.db.transaction(async (tx) => publisher.publishMany(tx, payloads.map(note)))
    await zombie.says('holding')
    zombie.child.kill('SIGSTOP')
    await lapseHeartbeats(database)
    const heir = await start(database)
    // The zombie has the row of the counter locked, and the server would let it for more than a minute.
    await until('all are delivered', async () => (await delivered(database)) === payloads.length)
    zombie.child.stdin?.write('go on\n')
    zombie.child.kill('SIGCONT')
    await zombie.says('resumed')
    for (const { child, exited } of [zombie, heir]) {
      child.kill('SIGTERM')
      expect(await exited).toBe(0)
    }
    const count = payloads.length
    expect(await countEffects(database)).toEqual({ receipts: count, effects: count, distinct: count })
    expect(await database.rows('select n from counters')).toEqual([{ n: 1 }])
    expect(await database.count(`select count(*) from bus.events where type = 'payment.refunded'`)).toBe(
      count,
    )
  },
)

const processCount = isFullForm ? 4 : 3
const killCount = isFullForm ? 3 : 2

test(`${processCount} processes that are killed at random, and taken for dead while they live, make every effect once`, async () => {
  const database = await openDatabase()
  const processes = await Promise.all(Array.from({ length: processCount }, async () => start(database)))
  const publisher = testBus(database.url)
  let committed = 0
  let publishing = true
  async function write(writer: number): Promise<void> {
    for (let i = 0; publishing; i += 1) {
      const length = 1 + ((i * 7 + writer * 13) % 60)
      const notes = Array.from({ length }, (_, n) => note([writer, i, n]))
      const isRolledBack = i % 5 === 4
      await database.db
        .transaction(async (tx) => {
          await publisher.publishMany(tx, notes)
          if (isRolledBack) throw new Error('rolled back')
        })
        .catch((error: unknown) => {
          if (!isRolledBack) throw error
        })
      if (!isRolledBack) committed += length
      // Always enough for the kills to hit events in hand, and never more than is delivered soon.
      await until('the backlog is small', async () => committed - (await delivered(database)) < 300)
    }
  }
  const writers = [0, 1, 2].map(async (writer) => write(writer))
  const heirs: Promise<ProgramProcess>[] = []
  for (let kills = 0; kills < killCount; kills += 1) {
    const before = await delivered(database)
    await until('more is delivered', async () => (await delivered(database)) > before + 100)
    processes.shift()?.child.kill('SIGKILL')
    await lapseHeartbeats(database)
    heirs.push(start(database))
  }
  publishing = false
  await Promise.all(writers)
  processes.push(...(await Promise.all(heirs)))
  // Whoever was killed last is not heard of for 30 s: do not wait for it here.
  await lapseHeartbeats(database)
  await until('every event is delivered', async () => (await delivered(database)) >= committed)
  for (const { child, exited } of processes) {
    child.kill('SIGTERM')
    expect(await exited).toBe(0)
  }
  expect(await countEffects(database)).toEqual({
    receipts: committed,
    effects: committed,
    distinct: committed,
  })
  expect(await database.count(`select count(*) from bus.events where type = 'payment.refunded'`)).toBe(
    committed,
  )
  expect(await database.count(`select count(*) from pgboss.job where name = 'bus.once.dead'`)).toBe(0)
  console.log(`${committed} events, each effect once`)
})
