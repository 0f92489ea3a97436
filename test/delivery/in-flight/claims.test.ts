import { expect, test } from 'vitest'
import { withFaultHook } from '../../../src/foundation/fault-points.ts'
import { recordingLogger, testBus, type LogLine } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { createEffects, writeEffect } from '../../support/effects.ts'
import { holdClock } from '../../support/held-clock.ts'

const heartbeatSeconds = 10

const takenOver = 'another worker has taken a job over: its handlers are aborted'

const isTold = ({ lines }: { readonly lines: readonly LogLine[] }): boolean =>
  lines.some(({ message }) => message === takenOver)

/** What another worker's claim does to the one before it. */
const takeOver = async ({ rows }: TestDatabase, queue: string): Promise<unknown> =>
  rows(
    `update pgboss.job set retry_count = retry_count + 1, heartbeat_on = now()
     where name = $1 and state = 'active' returning id`,
    [queue],
  )

test.each([true, false])(
  'after a long pause of the process the next event of a key begins only if its claim is still current (taken over: %s)',
  async (isTaken) => {
    const clock = holdClock()
    const database = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    const seen: unknown[] = []
    const taken: unknown[] = []
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      heartbeatSeconds,
      handler: async ({ payload }) => {
        seen.push(payload)
        if (payload !== 1) return
        if (isTaken) taken.push(await takeOver(database, 'bus.ordered'))
        clock.advance(heartbeatSeconds * 1000 + 1)
      },
    })
    await database.db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        [1, 2].map((payload) => ({ type: 'note', tenantId: 'a', orderingKey: 'k', payload }) as const),
      ),
    )
    await bus.start()
    await until(
      'it hears that the job was taken over, or both are delivered',
      async () => isTold(logger) || (await database.count('select count(*) from bus.deliveries')) === 2,
    )
    expect(isTold(logger)).toBe(isTaken)
    expect(seen).toEqual(isTaken ? [1] : [1, 2])
    expect(taken).toHaveLength(isTaken ? 1 : 0)
  },
)

test.each([false, true])(
  'a heartbeat that misses a job whose completion is just committed takes it from nobody (taken over: %s)',
  async (isTaken) => {
    const clock = holdClock()
    const database = await createTestDatabase()
    await createEffects(database)
    const logger = recordingLogger()
    const committed = Promise.withResolvers<void>()
    const mayGoOn = Promise.withResolvers<void>()
    const bus = withFaultHook(
      async (point) => {
        if (point !== 'exactly-once.committed') return
        committed.resolve()
        await mayGoOn.promise
      },
      () => testBus(database.url, { logger }),
    )
    const running = Promise.withResolvers<void>()
    const mayEnd = Promise.withResolvers<void>()
    // The other one's job is what shows that a heartbeat was written.
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      heartbeatSeconds,
      concurrency: 2,
      batchSize: 1,
      handler: async (event, { tx }) => {
        if (event.payload === 'waits') {
          running.resolve()
          await mayEnd.promise
        }
        await writeEffect(tx, event)
      },
    })
    await bus.start()
    await bus.tryPublish({ type: 'note', tenantId: 'a', payload: 'waits' })
    await running.promise
    await bus.tryPublish({ type: 'note', tenantId: 'a', payload: 'quick' })
    await committed.promise
    const heartbeats = async (): Promise<number> =>
      database.count(
        `select extract(epoch from heartbeat_on) * 1000 from pgboss.job where name = 'bus.once' and state = 'active'`,
      )
    if (isTaken) await takeOver(database, 'bus.once')
    // Twice: when the second one is written, the answer to the first is here.
    for (let n = 0; n < (isTaken ? 1 : 2); n += 1) {
      const before = await heartbeats()
      clock.advance((heartbeatSeconds * 1000) / 3 + 1)
      if (isTaken) await until('it hears that the job was taken over', () => isTold(logger))
      else await until('a heartbeat is written', async () => (await heartbeats()) > before)
    }
    expect(isTold(logger)).toBe(isTaken)
    mayGoOn.resolve()
    mayEnd.resolve()
    await until(
      'what is still its own is delivered',
      async () => (await database.count('select count(*) from effects')) === (isTaken ? 1 : 2),
    )
  },
)
