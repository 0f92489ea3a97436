import { expect, onTestFinished, test } from 'vitest'
import { createDeliveryFollower } from '../../src/cli/follow/follow-deliveries.ts'
import { followLog } from '../../src/cli/follow/follow-log.ts'
import { createDatabase } from '../../src/database/database.ts'
import type { Bus } from '../../src/index.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { publish } from '../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

test('an event that a look has found is shown once, although nobody waited for the end of that look', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const own = createDatabase(database.url, recordingLogger())
  onTestFinished(async () => own.close())
  const answers = Promise.withResolvers<void>()
  const answered = Promise.withResolvers<void>()
  let isHeld = false
  let isBlind = false
  // Its answers are held; what it does in the database is done.
  const slow = {
    ...own,
    query: async (text: string, values?: unknown[]) => {
      const result = await own.query(text, values)
      if (isHeld && text.startsWith('select e.id from bus.events') && result.rows.length > 0) {
        await answers.promise
        setImmediate(answered.resolve)
      }
      return result
    },
  } as typeof own
  const ended = new AbortController()
  const notes: string[] = []
  const seen: unknown[] = []
  const following = (async () => {
    for await (const { id } of followLog({
      // The events are found by the look for late commits alone.
      bus: {
        events: {
          ...bus.events,
          find: async () => (isBlind ? [] : bus.events.find({ limit: 500, order: 'oldest' })),
        },
      } as unknown as Bus,
      database: slow,
      wakeUps: {
        // It tries again when the look that it gave up has ended.
        wait: async () =>
          notes.length > 0 && isHeld ? answered.promise : new Promise((resolve) => setTimeout(resolve, 20)),
        isListening: () => false,
        close: async () => {},
      },
      ...{ filter: { types: undefined, patterns: undefined, tenantId: undefined }, from: undefined },
      signal: ended.signal,
      inTime: async (work) =>
        Promise.race([
          work,
          new Promise<never>((_, reject) => setTimeout(() => reject(new Error('no answer in time')), 500)),
        ]),
      note: (text) => notes.push(text),
    }))
      seen.push(id)
  })()
  const [first] = await publish(database, bus, note)
  await until('it follows', () => seen.includes(first))
  isBlind = true
  isHeld = true
  const [second] = await publish(database, bus, note)
  await until('a look was given up', () => notes.length > 0)
  answers.resolve()
  await answered.promise
  isHeld = false
  await until('it is shown', () => seen.includes(second))
  await until('the database answers', () => notes.includes('The database answers again.'))
  isBlind = false
  const [third] = await publish(database, bus, note)
  await until('the next one is shown', () => seen.includes(third))
  ended.abort()
  await following
  expect(seen).toEqual([first, second, third])
})

test('what became of an event is told once, although another one could not be looked up', async () => {
  const delivered = { subscription: 'cases', state: 'delivered', attempts: 1 }
  let isBroken = true
  const follower = createDeliveryFollower({
    deliveries: async (id: string) => {
      if (isBroken && id === 'b') throw new Error('away')
      return [delivered]
    },
  } as unknown as Bus)
  follower.add('a')
  follower.add('b')
  await expect(follower.look()).rejects.toThrow('away')
  expect(follower.take().map(({ eventId }) => eventId)).toEqual(['a'])
  isBroken = false
  await follower.look()
  // A look that overlaps with it finds nothing twice.
  await Promise.all([follower.look(), follower.look()])
  expect(follower.take().map(({ eventId }) => eventId)).toEqual(['b'])
  expect(follower.waitingCount()).toBe(0)
})
