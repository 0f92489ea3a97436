import { expect, onTestFinished, test } from 'vitest'
import { createDatabase, type Database } from '../../src/database/database.ts'
import { insertOperation, type OperationKind } from '../../src/operations/operation.ts'
import {
  startOperationRunner,
  type OperationPart,
  type OperationRunner,
} from '../../src/operations/operation-runner.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'

function open(database: TestDatabase): Database {
  const own = createDatabase(database.url, recordingLogger())
  onTestFinished(async () => own.close())
  return own
}

function run(
  database: Database,
  parts: Partial<Record<OperationKind, OperationPart>>,
  logger = recordingLogger(),
): OperationRunner {
  const runner = startOperationRunner({ database, logger, parts })
  onTestFinished(async () => runner.stop())
  return runner
}

async function insert(database: Database, options: { rate?: number } = {}): Promise<string> {
  return database.transaction(async (client) =>
    insertOperation(client, {
      kind: 'discard',
      by: 'ana',
      reason: 'a test',
      action: 'deadLetters.discard',
      selection: { subscription: 'open-case' },
      subscriptionIds: [],
      ...options,
    }),
  )
}

/** Writes each number from 1 to 100 once, ten in a part. */
const counting: OperationPart = async (client, operation, maxCount) => {
  const last = Number(operation.progress['last'] ?? 0)
  const size = Math.min(10, maxCount)
  await client.query('insert into public.numbers select generate_series($1::int + 1, $1::int + $2::int)', [
    last,
    size,
  ])
  return {
    progress: { last: last + size },
    counts: { written: size },
    handledCount: size,
    next: last + size >= 100 ? { state: 'done' } : { state: 'running' },
  }
}

async function createNumbers({ rows }: TestDatabase): Promise<void> {
  await rows('create table numbers (n int primary key)')
}

const numbers = async ({ count }: TestDatabase): Promise<number> => count('select count(*) from numbers')

test('the parts of an operation follow each other until it is done, and its audit record says so', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const id = await insert(own)
  expect(await bus.operations.get(id)).toMatchObject({
    ...{
      id,
      kind: 'discard',
      state: 'running',
      by: 'ana',
      reason: 'a test',
      counts: {},
      finishedAt: undefined,
    },
    ...{ selection: { subscription: 'open-case' }, subscriptions: [], rate: undefined, error: undefined },
  })
  expect(await bus.audit.list()).toMatchObject([
    { by: 'ana', action: 'deadLetters.discard', operationId: id, outcome: undefined, finishedAt: undefined },
  ])
  run(own, { discard: counting })
  await until('it is done', async () => (await bus.operations.get(id)).state === 'done')
  expect(await bus.operations.get(id)).toMatchObject({
    counts: { written: 100 },
    finishedAt: expect.any(Date) as Date,
  })
  expect(await numbers(database)).toBe(100)
  expect(await bus.audit.list({ operationId: id })).toMatchObject([
    { outcome: { state: 'done', counts: { written: 100 } }, finishedAt: expect.any(Date) as Date },
  ])
})

test('several runners do each part once', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const ids = [await insert(own)]
  for (let i = 0; i < 4; i += 1) run(open(database), { discard: counting })
  await until('it is done', async () => (await bus.operations.get(ids[0] ?? '')).state === 'done')
  expect(await numbers(database)).toBe(100)
})

test('a part that fails is undone and tried again, its error is shown, and a part that always fails stops the operation', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const id = await insert(own)
  let fails = true
  const part: OperationPart = async (client, operation, maxCount) => {
    const result = await counting(client, operation, maxCount)
    if (fails) throw new Error('the disk is full')
    return result
  }
  const logger = recordingLogger()
  const runner = run(own, { discard: part }, logger)
  await until('it has failed', async () => (await bus.operations.get(id)).error !== undefined)
  expect(await bus.operations.get(id)).toMatchObject({
    state: 'running',
    error: 'the disk is full',
    counts: {},
  })
  expect(await numbers(database)).toBe(0)
  await database.rows('update bus.operations set error_count = 14, next_part_at = now()')
  runner.wake()
  await until('it has stopped', async () => (await bus.operations.get(id)).state === 'stopped')
  expect(await bus.operations.get(id)).toMatchObject({
    ...{ state: 'stopped', stateReason: 'the disk is full', error: 'the disk is full', counts: {} },
  })
  await until('it is reported', () => logger.lines.some(({ level }) => level === 'error'))
  const reported = logger.lines.filter(({ level }) => level !== 'info')
  expect(reported.map(({ level, message }) => [level, message])).toEqual([
    ...reported.slice(1).map(() => ['warn', 'a part of an operation failed, retrying']),
    ['error', 'an operation has stopped: a person must decide'],
  ])
  expect(reported.at(-1)?.fields).toEqual({ operationId: id, kind: 'discard', reason: 'the disk is full' })
  fails = false
  expect(await bus.operations.resume(id, { by: 'ana', reason: 'there is room again' })).toBe(true)
  runner.wake()
  await until('it is done', async () => (await bus.operations.get(id)).state === 'done')
  expect(await numbers(database)).toBe(100)
})

test('the end of an operation is logged once it is committed', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const id = await insert(own)
  let commits = false
  const failing: Database = {
    ...own,
    transaction: async (work, begin) =>
      own.transaction(async (client, begun, commit) => {
        const result = await work(client, begun, commit)
        if (!commits) throw new Error('the commit failed')
        return result
      }, begin),
  }
  const logger = recordingLogger()
  const part: OperationPart = async () => ({
    ...{ progress: {}, counts: { written: 1 }, handledCount: 1 },
    next: { state: 'done' },
  })
  const runner = run(failing, { discard: part }, logger)
  await until('it has failed', async () => (await bus.operations.get(id)).error !== undefined)
  const ends = () => logger.lines.filter(({ message }) => message === 'an operation is done')
  expect(ends()).toEqual([])
  commits = true
  await database.rows('update bus.operations set next_part_at = now()')
  runner.wake()
  await until('it is logged', () => ends().length > 0)
  expect(ends()).toMatchObject([{ fields: { operationId: id, kind: 'discard', written: 1 } }])
  expect(await bus.operations.get(id)).toMatchObject({ state: 'done', counts: { written: 1 } })
})

test('an operation is paused, resumed and cancelled by people, once each, and each is recorded', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const id = await insert(own, { rate: 20 })
  const runner = run(own, { discard: counting })
  await until('it has begun', async () => (await numbers(database)) > 0)
  expect(await bus.operations.pause(id, { by: 'bo' })).toBe(true)
  expect(await bus.operations.pause(id, { by: 'bo' })).toBe(false)
  expect(await bus.operations.get(id)).toMatchObject({ state: 'paused', stateBy: 'bo' })
  const held = await numbers(database)
  runner.wake()
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect(await numbers(database)).toBe(held)
  expect(await bus.operations.resume(id, { by: 'cy', reason: 'go on' })).toBe(true)
  runner.wake()
  await until('it goes on', async () => (await numbers(database)) > held)
  expect(await bus.operations.cancel(id, { by: 'di', reason: 'enough' })).toBe(true)
  expect(await bus.operations.cancel(id, { by: 'di' })).toBe(false)
  expect(await bus.operations.resume(id, { by: 'di' })).toBe(false)
  expect(await bus.operations.get(id)).toMatchObject({
    ...{ state: 'cancelled', stateBy: 'di', stateReason: 'enough', finishedAt: expect.any(Date) as Date },
  })
  expect(await numbers(database)).toBeLessThan(100)
  const records = await bus.audit.list()
  expect(records.map(({ by, action }) => [by, action])).toEqual([
    ['di', 'operations.cancel'],
    ['cy', 'operations.resume'],
    ['bo', 'operations.pause'],
    ['ana', 'deadLetters.discard'],
  ])
  expect(records.at(-1)?.outcome).toMatchObject({ state: 'cancelled' })
})

test('a rate bounds the events of a second', async () => {
  const database = await createTestDatabase()
  await createNumbers(database)
  const bus = testBus(database.url)
  const own = open(database)
  const id = await insert(own, { rate: 100 })
  const beganAt = performance.now()
  run(own, { discard: counting })
  await until('it is done', async () => (await bus.operations.get(id)).state === 'done')
  // 90 of the 100 are waited for.
  expect(performance.now() - beganAt).toBeGreaterThan(800)
})

test('an operation that runs is found by a process that was started, without a notification', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.start()
  const own = open(database)
  const id = await insert(own)
  expect(await bus.operations.list({ state: 'running' })).toMatchObject([{ id }])
  expect(await bus.operations.list({ kind: 'replay' })).toEqual([])
  expect(await bus.operations.list({ after: id })).toEqual([])
})

test('bad input is refused, and an operation that does not exist is said to be missing', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const missing = '01912345-6789-7abc-8def-0123456789ab'
  await expect(bus.operations.get(missing)).rejects.toMatchObject({ code: 'BUS_OPERATION_NOT_FOUND' })
  await expect(bus.operations.pause(missing, { by: 'ana' })).rejects.toMatchObject({
    code: 'BUS_OPERATION_NOT_FOUND',
  })
  const invalid = { code: 'BUS_INVALID_OPTION' }
  await expect(bus.operations.get('x')).rejects.toMatchObject(invalid)
  await expect(bus.operations.cancel(missing, { by: '' })).rejects.toMatchObject(invalid)
  await expect(bus.operations.cancel(missing, {} as never)).rejects.toMatchObject(invalid)
  await expect(bus.operations.list({ kind: 'reply' as never })).rejects.toMatchObject(invalid)
  await expect(bus.operations.list({ limit: 0 })).rejects.toMatchObject(invalid)
  await expect(bus.audit.list({ actor: 'ana' } as never)).rejects.toMatchObject(invalid)
  await expect(bus.audit.list({ eventId: 'pay_1' })).rejects.toMatchObject(invalid)
})
