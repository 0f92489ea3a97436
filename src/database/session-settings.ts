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

/** Statements that begin a transaction, followed, behind a pooler, by the settings that the session could not be given. */
export function beginOn(
  { localSettingsSql: local }: { readonly localSettingsSql: string | undefined },
  begin: string,
): string {
  if (local === undefined) return begin
  const end = begin.indexOf(';')
  return end === -1 ? `${begin}; ${local}` : `${begin.slice(0, end)}; ${local}${begin.slice(end)}`
}
