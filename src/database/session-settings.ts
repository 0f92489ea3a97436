import pg from 'pg'
import { readOnlyByOption } from './read-only-option.ts'
import { keepaliveSettings } from './configuration/keepalive.ts'

type Settings = Readonly<Record<string, string>>

/** Whose statements a session runs: only the bus's, or also those of handlers, which expect the settings of their service. */
export type SessionKind = 'bus' | 'handlers'

/** Every time limit of the server: the bus has its own. */
const noTimeLimits: Settings = {
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  transaction_timeout: '0',
}

/**
 * The settings of each session of the bus, whatever is configured for the database, the role or the server. Settings
 * that the server does not know are skipped. They are applied by one statement when a direct connection is opened: see
 * {@link pinSql}.
 */
export const sessionSettings: Readonly<Record<SessionKind, Settings>> = {
  bus: {
    ...noTimeLimits,
    ...keepaliveSettings,
    default_transaction_isolation: 'read committed',
    default_transaction_read_only: 'off',
    // Only PostgreSQL's own functions and operators are found; objects of the bus are qualified by their schema.
    search_path: 'pg_catalog, pg_temp',
    row_security: 'on',
    IntervalStyle: 'postgres',
    extra_float_digits: '1',
    bytea_output: 'hex',
    array_nulls: 'on',
    jit: 'off',
  },
  // Handlers use the search path, time zone and date style of their service.
  handlers: { ...noTimeLimits, ...keepaliveSettings },
}

/**
 * The startup parameters of the bus's own sessions: settings that every pooler forwards or tracks for each client.
 * PgBouncer refuses all others.
 */
export const startupSettings: Readonly<Record<SessionKind, Settings>> = {
  bus: { DateStyle: 'ISO, MDY', TimeZone: 'UTC', standard_conforming_strings: 'on' },
  handlers: {},
}

/**
 * Sets the bus's search path for its own writes in a handler's transaction, until {@link handlerPathSql} restores the
 * handler's: constraints of the handler's tables may be checked at the commit, by functions that need it.
 */
export const busPathSql = `select pg_catalog.set_config('bus.handler_path', pg_catalog.current_setting('search_path'), true),
  pg_catalog.set_config('search_path', '${sessionSettings.bus['search_path'] ?? ''}', true),
  pg_catalog.set_config('row_security', 'on', true)`
export const handlerPathSql = `select pg_catalog.set_config('search_path', pg_catalog.current_setting('bus.handler_path'), true)`

/**
 * Applies the settings to a session if the connection is direct, that is, if the server process is the one that the
 * connection was told. A pooler reports another one, and a setting made by one of its clients would leak to the next.
 * Returns a row if the settings were applied.
 */
export function pinSql(kind: SessionKind, backendPid: number, kept: readonly string[]): string {
  return `${setSql(kind, kept, false)} and pg_catalog.pg_backend_pid() operator(pg_catalog.=) ${backendPid}`
}

/** Applies them to one transaction, behind a pooler. */
export function pinLocallySql(kind: SessionKind, kept: readonly string[]): string {
  return setSql(kind, kept, true)
}

function setSql(kind: SessionKind, kept: readonly string[], isLocal: boolean): string {
  const values = Object.entries(sessionSettings[kind])
    .filter(([name]) => !kept.includes(name))
    .map(([name, value]) => `('${name}', '${value}')`)
  return `select pg_catalog.set_config(s.name, s.value, ${isLocal}) from (values ${values.join(', ')}) as s (name, value)
where pg_catalog.current_setting(s.name, true) is not null`
}

/**
 * How every writing transaction of the bus begins, whatever the server's defaults are: its code is written for this
 * isolation level.
 */
export const beginWriting = 'begin isolation level read committed read write'

/** How a transaction begins that only reads: a standby refuses the other kind. */
export const beginReading = 'begin isolation level read committed read only'

/**
 * Statements that begin a transaction, followed, behind a pooler, by the settings that the session could not be given.
 *
 * @throws a {@link DatabaseError} `BUS_SETTING_UNSUPPORTED` if it is to write, and the connection is asked to read only
 */
export function beginOn(
  session: { readonly localSettingsSql: string | undefined; readonly isReadOnlyByOption?: boolean },
  begin: string,
): string {
  if (session.isReadOnlyByOption === true && begin.startsWith(beginWriting)) throw readOnlyByOption()
  const { localSettingsSql: local } = session
  if (local === undefined) return begin
  const end = begin.indexOf(';')
  return end === -1 ? `${begin}; ${local}` : `${begin.slice(0, end)}; ${local}${begin.slice(end)}`
}

type Parse = (text: string) => unknown

/**
 * How the bus parses values of the server. It has its own parsers, because `pg.types.setTypeParser` affects every
 * connection of the process, and an application may call it at any time. They equal node-postgres's defaults for the
 * types that the bus and pg-boss read, in the formats that {@link sessionSettings} and {@link startupSettings} set; other
 * types are text. No parser throws.
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
