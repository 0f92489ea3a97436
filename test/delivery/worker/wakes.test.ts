import { expect, test } from 'vitest'
import { newJob } from '../../../src/delivery/jobs/job.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { subscriptionWith } from '../../support/claims.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { holdClock } from '../../support/held-clock.ts'
import { openBoss } from '../../support/queues.ts'

/** From a certain moment on the clock stands still in these tests: nobody looks into a queue because it is time to. */

test('after its listening connection was lost a process fetches what it was not told of', async () => {
  const clock = holdClock()
  const { url, rows } = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  const handled: string[] = []
  bus.subscribe({ name: 'woken', events: ['note'], handler: ({ id }) => void handled.push(id) })
  await bus.start()
  await bus.tryPublish({ type: 'note', tenantId: 'a', payload: 'first' })
  await until('it is at work', () => handled.length === 1)
  await until('it listens', async () => (await bus.health()).listening)
  clock.stop()
  // An event that is in the log, and a job for it of which nobody is notified: as when a connection is lost before the notification comes.
  const availableAt = new Date(Date.now() + 3_600_000)
  const missed = await bus.tryPublish({ type: 'note', tenantId: 'a', payload: 'missed', availableAt })
  const boss = await openBoss(url)
  await boss.insert('bus.woken', [newJob([missed?.id ?? ''], subscriptionWith())])
  expect(handled).toHaveLength(1)
  await until('the session that holds the lock of the leader is ended', async () => {
    const ended = await rows(
      `select pg_terminate_backend(a.pid) from pg_stat_activity a join pg_locks l on l.pid = a.pid
       where l.locktype = 'advisory' and a.datname = current_database() and a.application_name = 'bossbus'`,
    )
    return ended.length > 0
  })
  await until('it has what it missed', () => handled.length === 2, 10_000)
  expect(handled[1]).toBe(missed?.id)
  expect(logger.lines.map(({ message }) => message)).toContain(
    'the listening connection was lost, reconnecting',
  )
})

test('a process that stops tells the others of the job that a key has next', async () => {
  const clock = holdClock()
  const { url, db, count } = await createTestDatabase()
  const handled: string[] = []
  const running = Promise.withResolvers<void>()
  const mayEnd = Promise.withResolvers<void>()
  const open = async (name: string): Promise<ReturnType<typeof testBus>> => {
    const bus = testBus(url)
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      handler: async ({ payload }) => {
        handled.push(`${name}: ${String(payload)}`)
        if (payload !== 1) return
        running.resolve()
        await mayEnd.promise
      },
    })
    await bus.start()
    return bus
  }
  const note = (payload: number) => ({ type: 'note', tenantId: 'a', orderingKey: 'k', payload }) as const
  const first = await open('first')
  await db.transaction(async (tx) => first.publish(tx, note(1)))
  await running.promise
  const second = await open('second')
  // When its session comes up it looks, and not for the reason that is in question here.
  await until('the other one listens', async () => (await second.health()).listening)
  await db.transaction(async (tx) => first.publish(tx, note(2)))
  await until(
    'the second event waits behind the first',
    async () => (await count('select count(*) from bus.ordered_events')) === 2,
  )
  clock.stop()
  const stopping = first.stop({ graceMs: 10_000 })
  mayEnd.resolve()
  await stopping
  await until('another process has it', () => handled.length === 2, 10_000)
  expect(handled).toEqual(['first: 1', 'second: 2'])
})
