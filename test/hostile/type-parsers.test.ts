import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { parseTime, valueTypes } from '../../src/database/session-settings.ts'
import { createTestDatabase } from '../support/database.ts'
import { goodDelivery, runDeliverySuite, type Publisher } from '../support/delivery-suite.ts'

type Parse = (text: string) => unknown

/** Every type that the bus or pg-boss may ask for, and what is made of it anywhere in the process. */
const oids = [
  16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 28, 114, 199, 700, 701, 1000, 1003, 1005, 1007, 1009, 1014, 1015,
  1016, 1021, 1022, 1028, 1042, 1043, 1082, 1083, 1114, 1115, 1182, 1184, 1185, 1186, 1187, 1231, 1266, 1560,
  1700, 2205, 2206, 2249, 2278, 2950, 2951, 3220, 3802, 3807,
]

/** Their numbers are an enumeration to the types, though any number will do. */
const types = pg.types as unknown as {
  readonly getTypeParser: (oid: number, format: 'text' | 'binary') => Parse
  readonly setTypeParser: ((oid: number, format: 'text' | 'binary', parse: Parse) => void) &
    ((oid: number, parse: Parse) => void)
}

/** Sets a parser for all of them, for the whole process, until the test is over. */
function setGlobalParsers(parse: Parse): void {
  const before = oids.flatMap((oid) =>
    (['text', 'binary'] as const).map((format) => [oid, format, types.getTypeParser(oid, format)] as const),
  )
  onTestFinished(() => {
    for (const [oid, format, known] of before) types.setTypeParser(oid, format, known)
  })
  for (const oid of oids) types.setTypeParser(oid, parse)
}

const parsers: readonly (readonly [string, Parse])[] = [
  ['leave everything as text', (text) => text],
  [
    'throw',
    () => {
      throw new Error('a parser of the application throws')
    },
  ],
  ['make an object of everything', (text) => ({ text })],
  ['make nothing of everything', () => undefined],
  ['make a number of everything', Number],
]

test.each(
  parsers.flatMap(([what, parse]) =>
    (['node-postgres', 'postgres.js with parsers of its own'] as const).map(
      (publisher) => [what, publisher, parse] as const,
    ),
  ),
)(
  'with parsers in the process that %s all is delivered, and what is read has the types of the bus (%s)',
  async (_what, publisher: Publisher, parse) => {
    const database = await createTestDatabase()
    setGlobalParsers(parse)
    expect(await runDeliverySuite(database, database.url, { publisher })).toEqual(goodDelivery)
  },
)

test('defaults of node-postgres that the application changes do not reach the bus', async () => {
  const database = await createTestDatabase()
  const { binary, parseInt8 } = pg.defaults
  onTestFinished(() => {
    Object.assign(pg.defaults, { binary, parseInt8 })
  })
  Object.assign(pg.defaults, { binary: true, parseInt8: true })
  expect(await runDeliverySuite(database, database.url, { publisher: 'postgres.js' })).toEqual(goodDelivery)
})

test.each([
  ['2025-11-23 10:11:12.123456+00', '2025-11-23T10:11:12.123Z'],
  ['2025-11-23 10:11:12+00', '2025-11-23T10:11:12.000Z'],
  ['2025-11-23 10:11:12.9999+05:45', '2025-11-23T04:26:12.999Z'],
  ['1890-01-01 00:00:00-00:28:50', '1890-01-01T00:28:50.000Z'],
  ['0044-03-15 12:00:00+00 BC', '-000043-03-15T12:00:00.000Z'],
  ['0044-03-15 12:00:00+00', '0044-03-15T12:00:00.000Z'],
  ['10000-01-01 00:00:00+00', '+010000-01-01T00:00:00.000Z'],
])('the time %s of the server is read as %s', (text, time) => {
  expect(parseTime(text).toISOString()).toBe(time)
})

test.each(['infinity', '-infinity', '23/11/2025 10:11:12 UTC', '', '294276-01-01 00:00:00+00'])(
  'what is no time for JavaScript, such as %s, is an invalid one and nothing is thrown',
  (text) => {
    expect(parseTime(text).getTime()).toBeNaN()
  },
)

test('what the bus asks for is read by type, also in arrays', async () => {
  const { url } = await createTestDatabase()
  const client = new pg.Client({ connectionString: url, types: valueTypes })
  await client.connect()
  onTestFinished(async () => client.end())
  const { rows } = await client.query(
    `select true as b, 1::int2 as i2, 2::int4 as i4, 3::int8 as i8, 1.5::float4 as f4, 2.5::float8 as f8, 1.50::numeric as n, 'x'::text as t,
       '{"a":1}'::json as j, '[null]'::jsonb as jb, timestamptz '2025-01-02 03:04:05Z' as ts, null::int4 as nothing,
       array[1, null]::int4[] as i4s, array['a', null, 'NULL', 'c "d" \\ {e}'] as ts_, array['{}']::jsonb[] as jbs, array[true, false] as bs`,
  )
  expect(rows[0]).toEqual({
    b: true,
    i2: 1,
    i4: 2,
    i8: '3',
    f4: 1.5,
    f8: 2.5,
    n: '1.50',
    t: 'x',
    j: { a: 1 },
    jb: [null],
    ts: new Date('2025-01-02T03:04:05Z'),
    nothing: null,
    i4s: [1, null],
    ts_: ['a', null, 'NULL', String.raw`c "d" \ {e}`],
    jbs: [{}],
    bs: [true, false],
  })
})
