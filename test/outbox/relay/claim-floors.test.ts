import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createClaimFloors, type ClaimFloors } from '../../../src/outbox/relay/claim-floors.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { openSession } from '../../support/session.ts'
import { roomFor } from '../../support/slowness.ts'

const insert = (key: string | null, payload: string): string =>
  `insert into bus.events (tenant_id, type, source, ordering_key, payload)
   values ('acme', 'note', 'sql', ${key === null ? 'null' : `'${key}'`}, '"${payload}"')`

test('what commits long after its position was passed is delivered soon, before what was published after it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const free: unknown[] = []
  const ordered: unknown[] = []
  bus.subscribe({ name: 'free', events: ['note'], handler: ({ payload }) => void free.push(payload) })
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: ({ payload }) => void ordered.push(payload),
  })
  await bus.start()
  const late = await openSession(database)
  await late.rows('begin')
  await late.rows(insert('k', 'late'))
  await late.rows(insert(null, 'late without key'))
  // Others go on for long enough for every floor to rise as far as it may.
  let count = 0
  const beganAt = performance.now()
  while (performance.now() - beganAt < 3000) {
    count += 1
    await database.rows(insert('other', `other ${count}`))
    await database.rows(insert(null, `free ${count}`))
    await pause(5)
  }
  await until('the others are delivered', () => ordered.length === 2 * count)
  const committedAt = performance.now()
  await late.rows('commit')
  await database.rows(insert('k', 'after it'))
  await until('they are there', () => ordered.includes('after it') && free.includes('late without key'))
  expect(performance.now() - committedAt).toBeLessThan(roomFor(2000))
  expect(ordered.filter((payload) => payload === 'late' || payload === 'after it')).toEqual([
    'late',
    'after it',
  ])
})

/** A server where nothing is left below any floor. */
const server = (writers: readonly string[], now: number, name = 'a') => ({
  server: name,
  now,
  writers,
  isClean: true,
  isLeftBehind: false,
})

function sweeper(floors: ClaimFloors, clock: { ms: number }) {
  return (writers: readonly string[], name?: string): bigint => {
    clock.ms += 300
    const floor = floors.next(undefined)
    floors.noteSweep(floor, server(writers, clock.ms / 1000, name), 1)
    return floors.next(undefined).orderedPosition
  }
}

test('the certain floor waits for whoever wrote before it, and for nobody who came later', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  const sweep = sweeper(floors, clock)
  sweep([])
  floors.noteClaimed(100n)
  // One that was there when 101 was not given away yet, and is still there.
  for (let n = 0; n < 10; n += 1) sweep([`passing/${n}`, 'open'])
  const whileOpen = floors.next(undefined).orderedPosition
  expect(whileOpen).toBeLessThan(101n)
  sweep(['another'])
  floors.noteClaimed(200n)
  sweep(['another'])
  clock.ms += 300
  sweep([])
  sweep([])
  expect(floors.next(undefined).orderedPosition).toBeGreaterThanOrEqual(101n)
})

test('what is left below a candidate keeps the certain floor where it is', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  const sweep = sweeper(floors, clock)
  sweep([])
  floors.noteClaimed(100n)
  for (let n = 0; n < 10; n += 1) {
    clock.ms += 300
    const floor = floors.next(undefined)
    floors.noteSweep(floor, { ...server([], clock.ms / 1000), isClean: false }, 1)
  }
  expect(floors.next(undefined).orderedPosition).toBeLessThan(101n)
  sweep([])
  sweep([])
  sweep([])
  expect(floors.next(undefined).orderedPosition).toBe(101n)
})

test('another server, or one that was started again, begins from nothing', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  const sweep = sweeper(floors, clock)
  sweep([])
  floors.noteClaimed(100n)
  for (let n = 0; n < 5; n += 1) sweep([])
  expect(floors.next(undefined).orderedPosition).toBe(101n)
  expect(sweep([], 'b')).toBe(0n)
  expect(floors.next(undefined)).toMatchObject({ level: 'full', position: 0n, due: 0 })
})

test('sweeping takes a twentieth of the time at most, however long one sweep takes', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  const levels: string[] = []
  for (let ms = 0; ms < 20_000; ms += 100) {
    clock.ms = ms
    const floor = floors.next(undefined)
    levels.push(floor.level)
    if (floor.level !== 'recent') floors.noteSweep(floor, server([], ms / 1000), 100)
  }
  const sweeps = levels.filter((level) => level !== 'recent').length
  expect(sweeps).toBeGreaterThanOrEqual(8)
  expect(sweeps).toBeLessThanOrEqual(12)
})

test('while events come, what was committed late below the recent floor is looked for four times a second', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  const sweptAt: number[] = []
  for (let ms = 0; ms <= 2000; ms += 10) {
    clock.ms = ms
    const floor = floors.next(undefined)
    // Nobody asks for a sweep: no ring, and the relay does not sleep.
    floors.noteClaimed(BigInt(ms))
    if (floor.level === 'recent') continue
    sweptAt.push(ms)
    floors.noteSweep(floor, server([], ms / 1000), 1)
  }
  expect(sweptAt).toEqual([0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000])
})

test('a relay with nothing to claim rests until the next sweep is due, if it owes one', () => {
  const clock = { ms: 0 }
  const floors = createClaimFloors(() => clock.ms)
  floors.noteSweep(floors.next(undefined), server([], 0), 1)
  expect(floors.restMs).toBe(Number.POSITIVE_INFINITY)
  clock.ms = 100
  expect(floors.next(undefined).level).toBe('recent')
  expect(floors.restMs).toBe(150)
  clock.ms = 300
  expect(floors.restMs).toBe(0)
  expect(floors.next(undefined).level).toBe('sweep')
})
