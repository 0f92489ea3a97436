import { keepaliveSettings } from './configuration/keepalive.ts'

type Settings = Readonly<Record<string, string>>

/** Whose statements a session runs: the bus's alone, or those of handlers too, which expect the settings of their service. */
export type SessionKind = 'bus' | 'handlers'

/** Every limit of the server's on how long something may take: the bus has its own. */
const noTimeLimits: Settings = {
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  transaction_timeout: '0',
}

/**
 * What each session of the bus has, whatever was set for the database, the role or the server. A setting that the server does
 * not know is left out. Set by name in one statement when the connection is made, and only on a direct one: see {@link pinSql}.
 */
export const sessionSettings: Readonly<Record<SessionKind, Settings>> = {
  bus: {
    ...noTimeLimits,
    ...keepaliveSettings,
    default_transaction_isolation: 'read committed',
    default_transaction_read_only: 'off',
    // Functions and operators are those that PostgreSQL brings; what is the bus's is named with its schema.
    search_path: 'pg_catalog, pg_temp',
    row_security: 'on',
    IntervalStyle: 'postgres',
    extra_float_digits: '1',
    bytea_output: 'hex',
    array_nulls: 'on',
    jit: 'off',
  },
  // Handlers find their tables by the path of their service, and its time zone and date style.
  handlers: { ...noTimeLimits, ...keepaliveSettings },
}

/**
 * What goes into the startup packet of the bus's own sessions: the settings that every pooler passes on, or keeps apart for each of
 * its clients. PgBouncer refuses all others.
 */
export const startupSettings: Readonly<Record<SessionKind, Settings>> = {
  bus: { DateStyle: 'ISO, MDY', TimeZone: 'UTC', standard_conforming_strings: 'on' },
  handlers: {},
}

/**
 * The search path for what the bus writes in a transaction of a handler, until {@link handlerPathSql} gives the handler's back:
 * constraints of its tables may be checked at the commit, by functions that need it.
 */
export const busPathSql = `select pg_catalog.set_config('bus.handler_path', pg_catalog.current_setting('search_path'), true),
  pg_catalog.set_config('search_path', '${sessionSettings.bus['search_path'] ?? ''}', true),
  pg_catalog.set_config('row_security', 'on', true)`
export const handlerPathSql = `select pg_catalog.set_config('search_path', pg_catalog.current_setting('bus.handler_path'), true)`

/**
 * Sets the settings of a session where it is one: where the server's process is the one that the connection was told of. A pooler
 * tells another one, and a setting of one of its clients would be left to the next. Gives a row where they were set.
 */
export function pinSql(kind: SessionKind, backendPid: number, kept: readonly string[]): string {
  return `${setSql(kind, kept, false)} and pg_catalog.pg_backend_pid() operator(pg_catalog.=) ${backendPid}`
}

/** The same for one transaction, behind a pooler. */
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

/** How every transaction of the bus begins that writes, whatever the defaults of the server are: it is written for this level. */
export const beginWriting = 'begin isolation level read committed read write'

/** Statements that begin a transaction, followed, behind a pooler, by the settings that the session could not be given. */
export function beginOn(
  { localSettingsSql: local }: { readonly localSettingsSql: string | undefined },
  begin: string,
): string {
  if (local === undefined) return begin
  const end = begin.indexOf(';')
  return end === -1 ? `${begin}; ${local}` : `${begin.slice(0, end)}; ${local}${begin.slice(end)}`
}
