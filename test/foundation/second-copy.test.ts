import { createContext, runInContext } from 'node:vm'
import { expect, test } from 'vitest'
import * as ours from '../../src/index.ts'
import { describeFailure } from '../../src/delivery/attempts/failure.ts'
import { toOutcome } from '../../src/delivery/attempts/outcome.ts'
import { toBusError } from '../../src/database/database-errors.ts'
import { paymentEvents, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { loadSecondCopy } from '../support/second-copy.ts'
import { encodeNote } from '../events/json/encode.ts'
import { upcastPayload } from '../../src/events/upcast.ts'
import { validatePayload } from '../../src/events/validate-payload.ts'

type Package = typeof ours

const make: Record<string, (from: Package) => Error> = {
  InvalidEventError: (from) => new from.InvalidEventError('BUS_INVALID_EVENT', 'x'),
  TransactionError: (from) => new from.TransactionError('x'),
  ConfigurationError: (from) => new from.ConfigurationError('BUS_INVALID_OPTION', 'x'),
  TenantScopeError: (from) => new from.TenantScopeError('x'),
  StateError: (from) => new from.StateError('x'),
  DatabaseError: (from) => new from.DatabaseError('BUS_DATABASE_ERROR', 'x'),
  DeliveryError: (from) => new from.DeliveryError('BUS_HANDLER_TIMEOUT', 'x'),
  NonRetryableError: (from) => new from.NonRetryableError('x'),
  OverloadError: (from) => new from.OverloadError('too much waits'),
  HttpError: (from) => new from.HttpError(404, 'BUS_HTTP_NOT_FOUND', 'x'),
  RetryAfterError: (from) => new from.RetryAfterError(1),
}

type ErrorClass = abstract new (...args: never) => Error

const classesOf = (from: Package): Readonly<Record<string, ErrorClass>> => {
  const exported: Record<string, unknown> = { ...from }
  const isErrorClass = (value: unknown): value is ErrorClass =>
    typeof value === 'function' && value.prototype instanceof Error
  return Object.fromEntries(
    Object.entries(exported).filter((entry): entry is [string, ErrorClass] => isErrorClass(entry[1])),
  )
}

test('an error of another copy of the package is an instance of the same classes here, and of no others', async () => {
  const theirs = await loadSecondCopy()
  expect(theirs.BusError).not.toBe(ours.BusError)
  // Every class that the package exports has its line above.
  expect(Object.keys(classesOf(ours)).toSorted()).toEqual(['BusError', ...Object.keys(make)].toSorted())
  for (const [from, to] of [
    [theirs, ours],
    [ours, theirs],
    [ours, ours],
  ] as const) {
    for (const [name, create] of Object.entries(make)) {
      const error = create(from)
      const known = Object.entries(classesOf(to)).filter(([, errorClass]) => error instanceof errorClass)
      expect(known.map(([known]) => known).toSorted()).toEqual(['BusError', name].toSorted())
      expect(error.name).toBe(name)
    }
    expect(new Error('x')).not.toBeInstanceOf(to.BusError)
    for (const other of [undefined, null, 'x', {}, () => {}, Object.create(null)])
      expect(other instanceof to.BusError).toBe(false)
  }
})

test('a class that a service derives from one of these knows its own instances only', async () => {
  const theirs = await loadSecondCopy()
  class NoSuchCustomer extends ours.NonRetryableError {}
  class Sibling extends ours.NonRetryableError {}
  const error = new NoSuchCustomer('x')
  expect(error).toBeInstanceOf(NoSuchCustomer)
  expect(error).toBeInstanceOf(theirs.NonRetryableError)
  expect(error.name).toBe('NoSuchCustomer')
  for (const other of [new ours.NonRetryableError('x'), new theirs.NonRetryableError('x'), new Sibling('x')])
    expect(other).not.toBeInstanceOf(NoSuchCustomer)
})

test('a thrown proxy whose traps throw is no instance, and throws nothing', () => {
  const hostile: unknown = new Proxy({}, { has: () => fail(), getPrototypeOf: () => fail() })
  expect(hostile instanceof ours.NonRetryableError).toBe(false)
  function fail(): never {
    throw new Error('no')
  }
})

test('a handler that throws NonRetryableError or RetryAfterError of another copy is understood', async () => {
  const theirs = await loadSecondCopy()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const attempts: Record<string, number> = {}
  bus.subscribe({
    name: 'of-two-copies',
    events: ['payment.paid'],
    retry: { maxAttempts: 3, delaySeconds: 3600, backoff: false, maxDelaySeconds: 3600 },
    handler: ({ payload: { paymentId } }) => {
      const attempt = (attempts[paymentId] = (attempts[paymentId] ?? 0) + 1)
      if (paymentId === 'never') throw new theirs.NonRetryableError('never again')
      if (attempt === 1) throw new theirs.RetryAfterError(0)
    },
  })
  await database.db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      ['never', 'soon'].map((paymentId) => ({
        type: 'payment.paid' as const,
        tenantId: 'acme',
        payload: { paymentId, amountCents: 1 },
      })),
    ),
  )
  await bus.start()
  await until('one is a dead letter, one delivered', async () => {
    const receipts = await database.count('select count(*) from bus.deliveries')
    return receipts === 1 && (await bus.deadLetters.list()).length === 1
  })
  expect(attempts).toEqual({ never: 1, soon: 2 })
  expect((await bus.deadLetters.list())[0]).toMatchObject({
    attempts: 1,
    failures: [{ name: 'NonRetryableError', code: 'BUS_NON_RETRYABLE' }],
  })
})

test('two copies publish in one transaction, each the catalogue of the other', async () => {
  const theirs = await loadSecondCopy()
  const database = await createTestDatabase()
  const other = theirs.createBus({ database: database.url, events: paymentEvents, source: 'payment-service' })
  const bus = ours.createBus({
    database: database.url,
    events: theirs.defineEvents(paymentEvents),
    source: 'payment-service',
  })
  const event = {
    type: 'payment.paid' as const,
    tenantId: 'acme',
    payload: { paymentId: 'p', amountCents: 1 },
  }
  await database.db.transaction(async (tx) => {
    await bus.publish(tx, event)
    await other.publish(tx, event)
    await bus.publish(tx, event)
  })
  expect(await database.count('select count(*) from bus.events')).toBe(3)
  let handle: ours.DrizzleTransaction | undefined
  await database.db.transaction(async (tx) => {
    handle = tx
    await bus.publish(tx, event)
  })
  if (handle === undefined) throw new Error('there was no transaction')
  await expect(other.publish(handle, event)).rejects.toBeInstanceOf(ours.TransactionError)
  expect(await database.count('select count(*) from bus.events')).toBe(4)
  await Promise.all([bus.stop(), other.stop()])
})

test('the delay of a RetryAfterError of another version is taken only within the limits of this one', () => {
  const error = (seconds: unknown): Error => Object.assign(new ours.RetryAfterError(1), { seconds })
  const outcome = (seconds: unknown) =>
    toOutcome({ id: 'e', tenantId: 'acme', type: 'note' }, 1, { outcome: 'failed', thrown: error(seconds) })
  expect(outcome(7)).toMatchObject({ retryAfterSeconds: 7 })
  for (const seconds of [Number.NaN, -1, Number.POSITIVE_INFINITY, '5', undefined])
    expect(outcome(seconds)).not.toHaveProperty('retryAfterSeconds')
})

/** What test runners such as jest give test code: built-in classes of its own. */
const realm = createContext({})
const foreign = (code: string): unknown => runInContext(code, realm)

test('errors, dates and promises of another realm are what they are', async () => {
  expect(foreign('new TypeError("x")') instanceof Error).toBe(false)
  expect(describeFailure(1, foreign('Object.assign(new TypeError("odd"), { code: "E_ODD" })'))).toMatchObject(
    {
      name: 'TypeError',
      message: 'odd',
      code: 'E_ODD',
      stack: expect.stringContaining('TypeError: odd') as string,
    },
  )
  await expect(encodeNote({ availableAt: foreign('new Date(2e12)') })).resolves.toBeDefined()
  await expect(encodeNote({ availableAt: foreign('({ getUTCFullYear: () => 2030 })') })).rejects.toThrow(
    'availableAt',
  )
  const definition = {
    schema: {
      '~standard': { version: 1, vendor: 'own', validate: () => foreign('throw new RangeError("p")') },
    },
    version: 2,
    upcast: { 1: () => foreign('Promise.reject(new Error("late"))') },
  } as unknown as ours.EventDefinition
  await expect(validatePayload('note', definition, {})).rejects.toMatchObject({
    cause: { name: 'RangeError' },
  })
  expect(() => upcastPayload('note', definition, 1, {})).toThrow('returned a promise')
  // A mistake in code is no lost connection.
  expect(toBusError(foreign('new TypeError("x")'))).toMatchObject({ retryable: false })
  expect(toBusError(foreign('new Error("x")'))).toMatchObject({ retryable: true })
})
