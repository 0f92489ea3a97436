import { type } from 'arktype'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import * as v from 'valibot'
import { describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import {
  createBus,
  defineEvents,
  NonRetryableError,
  type DrizzleTransaction,
  type EventDefinition,
} from '../../src/index.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { canary, traceOfCanary, shownBy } from '../support/canary.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { encodeNote } from '../events/json/encode.ts'
import { refusalOf } from './refusal.ts'
import { asIfTransaction } from '../support/transact.ts'

const note = { type: 'note', tenantId: 'acme', payload: { secret: canary } } as const

test('the canary is found where it shows', () => {
  expect(shownBy(new Error('x', { cause: { deep: { er: { still: canary } } } }))).toMatch(traceOfCanary)
  expect(shownBy(new Error(canary.slice(0, 9)))).toMatch(traceOfCanary)
  expect(shownBy(Object.assign(new Error('x'), { parameters: [canary] }))).toMatch(traceOfCanary)
  expect(shownBy(new Error('nothing'))).not.toMatch(traceOfCanary)
})

describe('an event refused before it is written shows nothing of its payload', () => {
  const parsing = (): EventDefinition['schema'] => z.string().transform((text) => JSON.parse(text) as unknown)
  const cycle: Record<string, unknown> = { secret: canary }
  cycle['self'] = cycle
  let deep: unknown = canary
  for (let i = 0; i < 600; i += 1) deep = [deep]

  const cases: readonly (readonly [what: string, schema: EventDefinition['schema'], payload: unknown])[] = [
    [
      'zod: types',
      z.object({ a: z.number(), b: z.object({ c: z.boolean() }) }),
      { a: canary, b: { c: [canary] } },
    ],
    [
      'zod: formats',
      z.object({ a: z.email(), b: z.iso.date(), c: z.uuid() }),
      { a: canary, b: canary, c: canary },
    ],
    ['zod: choices', z.object({ a: z.enum(['x']), b: z.literal('y') }), { a: canary, b: canary }],
    ['zod: a union', z.union([z.object({ t: z.literal('a') }), z.number()]), { t: canary }],
    [
      'zod: a discriminated union',
      z.discriminatedUnion('t', [z.object({ t: z.literal('a') })]),
      { t: canary },
    ],
    ['zod: bounds', z.array(z.string().max(3)).min(5), [canary, canary]],
    ['zod: a parser that throws', parsing(), `${canary} ${canary}`],
    [
      'zod: a message with the value',
      z.string().refine(() => false, { error: ({ input }) => `bad: ${String(input)}` }),
      canary,
    ],
    ['valibot: types', v.object({ a: v.number(), b: v.array(v.boolean()) }), { a: canary, b: [canary] }],
    [
      'valibot: formats',
      v.object({ a: v.pipe(v.string(), v.trim(), v.toUpperCase(), v.email()) }),
      { a: ` ${canary} ` },
    ],
    ['valibot: choices', v.object({ a: v.picklist(['x']), b: v.literal('y') }), { a: canary, b: canary }],
    ['valibot: a union', v.union([v.object({ t: v.literal('a') }), v.literal('b')]), canary],
    ['valibot: a variant', v.variant('t', [v.object({ t: v.literal('a') })]), { t: canary }],
    ['valibot: a strict tuple', v.strictTuple([v.number()]), [canary, canary]],
    ['valibot: JSON', v.pipe(v.string(), v.parseJson()), canary],
    ['arktype: types', type({ a: 'number', b: 'boolean[]' }), { a: canary, b: [canary] }],
    [
      'arktype: formats',
      type({ a: 'string.email', b: 'string.uuid', c: 'string.date.iso' }),
      { a: canary, b: canary, c: canary },
    ],
    ['arktype: choices', type({ a: "'x' | 'y'" }), { a: canary }],
    [
      'arktype: a union',
      type({ t: "'a'", x: 'string' }).or({ s: "'b'", y: 'number' }),
      { t: canary, s: canary },
    ],
    ['arktype: JSON', type('string.json.parse'), canary],
    ['a text far too long for a message', v.pipe(v.string(), v.email()), canary.repeat(5000)],
    ['quotes and line ends', v.pipe(v.string(), v.email()), `"${canary}"\n'${canary}'`],
    ['no JSON: BigInt beside it', z.unknown(), [canary, 1n]],
    ['no JSON: a Date', z.unknown(), { secret: canary, at: new Date() }],
    ['no JSON: a Map', z.unknown(), new Map([[canary, canary]])],
    ['no JSON: NUL', z.unknown(), { a: `${canary}\u0000` }],
    ['no JSON: half a pair', z.unknown(), { a: `${canary}\ud800` }],
    ['no JSON: toJSON', z.unknown(), { secret: canary, toJSON: () => canary }],
    ['no JSON: an error', z.unknown(), new Error(canary)],
    ['no JSON: a symbol', z.unknown(), Symbol(canary)],
    ['no JSON: a cycle', z.unknown(), cycle],
    ['no JSON: too deep', z.unknown(), deep],
    [
      'a getter that throws',
      z.unknown(),
      {
        get a(): never {
          throw new Error(canary, { cause: canary })
        },
      },
    ],
    ['too large', z.unknown(), { secret: canary.repeat(20_000) }],
  ]

  test.each(cases)('%s', async (_what, schema, payload) => {
    const catalogue = defineEvents({ note: { schema } })
    const error = await refusalOf(async () => encodeNote({ payload }, { catalogue }))
    expect(shownBy(error)).not.toMatch(traceOfCanary)
    expect(error.message.length).toBeGreaterThan(20)
  })

  test.each<[string, Readonly<Record<string, unknown>>]>([
    ['unknown type', { type: 'nothing' }],
    ['no tenant', { tenantId: undefined }],
    ['a source that may not', { type: 'usage.billed' }],
    ['an unknown field', { body: canary }],
    ['a bad field', { eventId: 5 }],
    ['metadata that is too large', { metadata: { a: canary.repeat(2000) } }],
    ['metadata that is no text', { metadata: { a: [canary] } }],
  ])('%s', async (_what, fields) => {
    const error = await refusalOf(async () => encodeNote({ payload: { secret: canary }, ...fields }))
    expect(shownBy(error)).not.toMatch(traceOfCanary)
  })

  test('a payload given in the place of its event, or a list of them', async () => {
    const bus = testBus('postgres://nobody@127.0.0.1:1/none')
    for (const given of [canary, [canary], { secret: canary }, Symbol(canary)]) {
      const many = given as unknown as (typeof note)[]
      const one = given as unknown as typeof note
      const tx: DrizzleTransaction = asIfTransaction({ execute: async () => [] })
      expect(shownBy(await refusalOf(async () => bus.publish(tx, one)))).not.toMatch(traceOfCanary)
      expect(shownBy(await refusalOf(async () => bus.publishMany(tx, many)))).not.toMatch(traceOfCanary)
    }
  })
})

describe('a publish that the database refuses shows nothing of its payload', () => {
  test('on postgres.js and on node-postgres', async () => {
    const { url, db, rows } = await createTestDatabase()
    const pool = new pg.Pool({ connectionString: url, max: 2 })
    pool.on('error', () => {})
    onTestFinished(async () => pool.end())
    const bus = testBus(url)
    await rows(`alter table bus.events add check (type <> 'payment.refunded')`)
    const refunded = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: canary } } as const
    for (const handle of [db, drizzle(pool)]) {
      const inTransaction = async (work: (tx: DrizzleTransaction) => Promise<void>): Promise<void> => {
        if (handle === db) await db.transaction(work)
        else await drizzle(pool).transaction(work)
      }
      const ended: DrizzleTransaction[] = []
      await inTransaction(async (tx) => {
        ended.push(tx)
        await bus.publish(tx, note)
      })
      const handleItself = asIfTransaction(handle)
      const outside = await refusalOf(async () => bus.publish(handleItself, note))
      const late = await refusalOf(async () => bus.publish(ended[0] ?? handleItself, note))
      const [refused, after] = await inFailingTransaction(inTransaction, async (tx) => [
        await refusalOf(async () => bus.publish(tx, refunded)),
        await refusalOf(async () => bus.publish(tx, note)),
      ])
      expect([outside, late, refused, after]).toMatchObject([
        { code: 'BUS_NOT_IN_TRANSACTION' },
        { name: expect.stringMatching(/^(?:Transaction|Database)Error$/) as string },
        { code: 'BUS_DATABASE_ERROR', sqlState: '23514' },
        { code: 'BUS_DATABASE_ERROR', sqlState: '25P02' },
      ])
      for (const error of [outside, late, refused, after]) expect(shownBy(error)).not.toMatch(traceOfCanary)
    }
  })

  test('where the schema is missing, and where no handle is given', async () => {
    const { url, db } = await createTestDatabase({ empty: true })
    const bus = testBus(url)
    const [missing] = await inFailingTransaction(
      async (work) => db.transaction(work),
      async (tx) => [await refusalOf(async () => bus.publish(tx, note))],
    )
    expect(missing).toMatchObject({ code: 'BUS_SCHEMA_MISSING' })
    expect(shownBy(missing)).not.toMatch(traceOfCanary)
    for (const handle of [undefined, null, {}, note, canary]) {
      const error = await refusalOf(async () => bus.publish(handle as DrizzleTransaction, note))
      expect(error).toMatchObject({ code: 'BUS_NOT_IN_TRANSACTION' })
      expect(shownBy(error)).not.toMatch(traceOfCanary)
    }
  })
})

test('the bus logs nothing of a payload while it delivers, fails and gives up', async () => {
  const { url, db, count } = await createTestDatabase()
  const logger = recordingLogger()
  const events = defineEvents({
    note: { schema: z.unknown(), version: 2, upcast: { 1: (old: unknown) => old } },
    order: { schema: z.unknown() },
  })
  const bus = createBus({ database: url, events, source: 'tests', logger })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false }
  bus.subscribe({ name: 'all', events: ['**'], handler: () => {} })
  bus.subscribe({ name: 'rich', events: ['**'], where: '$.secret == "other"', handler: () => {} })
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry,
    handler: async () => Promise.reject(new Error('always')),
  })
  bus.subscribe({
    name: 'giving-up',
    events: ['order'],
    handler: () => {
      throw new NonRetryableError('never')
    },
  })
  await bus.start()
  await db.transaction(async (tx) => {
    await bus.publish(tx, { ...note, metadata: { note: canary } })
    await bus.publishMany(tx, [note, { ...note, type: 'order' }])
  })
  await until('all were delivered', async () => (await count('select count(*) from bus.deliveries')) === 3)
  await until('the failing ones are dead', async () => (await bus.deadLetters.list()).length === 3)
  expect(logger.lines.filter(({ message }) => message === 'an event went to the dead letters')).toHaveLength(
    3,
  )
  expect(JSON.stringify(logger.lines)).not.toMatch(traceOfCanary)
  expect(JSON.stringify(await bus.deadLetters.list())).not.toMatch(traceOfCanary)
})

/** Runs some work in a transaction that cannot commit any more, and gives its result. */
async function inFailingTransaction<T>(
  inTransaction: (work: (tx: DrizzleTransaction) => Promise<void>) => Promise<void>,
  work: (tx: DrizzleTransaction) => Promise<T>,
): Promise<T> {
  const results: T[] = []
  await inTransaction(async (tx) => {
    results.push(await work(tx))
  }).catch(() => {})
  const [result] = results
  if (result === undefined) throw new Error('The work gave no result')
  return result
}
