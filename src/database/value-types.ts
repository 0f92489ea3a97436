import pg from 'pg'

type Parse = (text: string) => unknown

/**
 * How the bus parses values of the server. It has its own parsers, because `pg.types.setTypeParser` affects every
 * connection of the process, and an application may call it at any time. They equal node-postgres's defaults for the
 * types that the bus and pg-boss read; other types are text. Nothing in this file throws.
 */
export const valueTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    // The bus never requests the binary format.
    format === 'binary'
      ? (value: unknown) => value
      : (parsers.get(oid) ?? asText)) as typeof pg.types.getTypeParser,
}

const asText: Parse = (text) => text
const asBoolean: Parse = (text) => text === 't'

function asJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const timeShape =
  /^(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d+)?(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)( BC)?$/

/** Always a Date, with milliseconds; an invalid Date for a time that JavaScript cannot represent, such as infinity. */
export function parseTime(text: string): Date {
  const found = timeShape.exec(text)
  if (found === null) return new Date(Number.NaN)
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = found.slice(1, 7).map(Number)
  const [fraction = '0', sign, hours = '0', minutes = '0', seconds = '0', isBeforeChrist] = found.slice(7)
  const time = new Date(0)
  time.setUTCFullYear(isBeforeChrist === undefined ? year : 1 - year, month - 1, day)
  time.setUTCHours(hour, minute, second, Math.floor(Number(fraction) * 1000))
  const offset = (Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)
  return new Date(time.getTime() - (sign === '-' ? -offset : offset) * 1000)
}

/** Parses only the array syntax: the caller parses the elements. */
const { arrayParser } = pg.types as unknown as {
  readonly arrayParser: {
    readonly create: (
      text: string,
      parse: (element: string | null) => unknown,
    ) => { readonly parse: () => unknown[] }
  }
}

const arrayOf =
  (parse: Parse): Parse =>
  (text) =>
    arrayParser.create(text, (element) => (element === null ? null : parse(element))).parse()

/** By type number, which is the same on every server: first the type itself, then its array. */
const parsers: ReadonlyMap<number, Parse> = new Map(
  (
    [
      [16, 1000, asBoolean], // bool
      [21, 1005, Number], // int2
      [23, 1007, Number], // int4
      [26, 1028, Number], // oid
      [20, 1016, asText], // int8
      [700, 1021, Number], // float4
      [701, 1022, Number], // float8
      [1700, 1231, asText], // numeric
      [19, 1003, asText], // name
      [25, 1009, asText], // text
      [1043, 1015, asText], // varchar
      [2950, 2951, asText], // uuid
      [114, 199, asJson], // json
      [3802, 3807, asJson], // jsonb
      [1184, 1185, parseTime], // timestamptz
    ] as const
  ).flatMap(([oid, arrayOid, parse]): [number, Parse][] => [
    [oid, parse],
    [arrayOid, arrayOf(parse)],
  ]),
)
