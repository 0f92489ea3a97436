import { describe, expect, test, vi } from 'vitest'
import { withFaultHook, type FaultHook, type FaultPoint } from '../../../src/foundation/fault-points.ts'
import { BusClient } from '../../../src/database/bus-client.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

const busWith = (url: string, hook: FaultHook | undefined): ReturnType<typeof testBus> =>
  hook === undefined ? testBus(url) : withFaultHook(hook, () => testBus(url))

describe('with fault points installed', () => {
  test('a small claim goes out in one round trip with its commit, and its points lie before that', async () => {
    const { url, count } = await createTestDatabase()
    const pipelined = vi.spyOn(BusClient.prototype, 'pipelined')
    const trail: (readonly [FaultPoint, number])[] = []
    // Counted on another connection: what is not committed is still in the outbox.
    const look: FaultHook = (point) =>
      point.startsWith('relay.') && !['relay.workers-woken', 'relay.asleep'].includes(point)
        ? count('select count(*) from bus.outbox').then((left) => void trail.push([point, left]))
        : undefined
    const bus = busWith(url, look)
    let got = 0
    bus.subscribe({ name: 'one', events: ['note'], handler: () => void (got += 1) })
    bus.subscribe({ name: 'two', events: ['note'], handler: async () => void (got += 1) })
    await bus.start()
    await until('it sleeps', async () => (await bus.health()).relay === 'sleeping')
    pipelined.mockClear()
    await bus.tryPublish(note('x'))
    await until('both have it', () => got === 2)
    await until('it was told', () => trail.some(([point]) => point === 'relay.committed'))
    expect(pipelined).toHaveBeenCalledTimes(1)
    expect(trail).toEqual([
      ['relay.claimed', 1],
      ['relay.routed', 1],
      ['relay.fetched-for-worker', 1],
      ['relay.jobs-inserted', 1],
      ['relay.committed', 0],
    ])
    pipelined.mockRestore()
  })

  test('handlers that return at once run in the same turn of the event loop as without', async () => {
    const turnsWith = async (hook: FaultHook | undefined): Promise<readonly number[]> => {
      const { url, db } = await createTestDatabase()
      const bus = busWith(url, hook)
      const turns: number[] = []
      let turn = 0
      bus.subscribe({
        name: 'quick',
        events: ['note'],
        concurrency: 2,
        handler() {
          turns.push(turn)
          queueMicrotask(() => (turn += 1))
        },
      })
      await db.transaction(async (tx) =>
        bus.publishMany(
          tx,
          Array.from({ length: 20 }, (_, n) => note(n)),
        ),
      )
      await bus.start()
      await until('all are delivered', () => turns.length === 20)
      await bus.stop()
      return turns
    }
    const points: FaultPoint[] = []
    const withHook = await turnsWith((point) => void points.push(point))
    expect(withHook).toEqual(await turnsWith(undefined))
    expect(new Set(withHook).size).toBe(1)
    const countOf = (name: FaultPoint): number => points.filter((point) => point === name).length
    expect([countOf('worker.handler-begins'), countOf('worker.handler-done')]).toEqual([20, 20])
  })

  test('a hook that waits keeps a handler from beginning, and what comes behind it from going on', async () => {
    const { url, count } = await createTestDatabase()
    const mayGoOn = Promise.withResolvers<void>()
    const reached: FaultPoint[] = []
    const bus = busWith(url, (point) => {
      if (point.startsWith('worker.handler')) reached.push(point)
      return point === 'worker.handler-begins' ? mayGoOn.promise : undefined
    })
    let got = 0
    bus.subscribe({ name: 'quick', events: ['note'], handler: () => void (got += 1) })
    await bus.start()
    await bus.tryPublish(note('x'))
    await until('it is about to begin', () => reached.length === 1)
    expect([got, await count('select count(*) from bus.deliveries')]).toEqual([0, 0])
    mayGoOn.resolve()
    await until('it is delivered', async () => (await count('select count(*) from bus.deliveries')) === 1)
    expect([got, reached]).toEqual([1, ['worker.handler-begins', 'worker.handler-done']])
  })
})
