import { describe, invalidOption } from '../foundation/options.ts'

/** The PostgreSQL schema of pg-boss, unless `bossSchema` names another one. The migrations contain this name. */
export const defaultBossSchema = 'pgboss'

/** The longest name that pg-boss accepts: it derives index names from it. */
const maxNameBytes = 50

/** Characters that pg-boss cannot handle in a name, even if it is quoted. */
// eslint-disable-next-line no-control-regex
const unusable = /["'%$.\\\u0000-\u001f\u007f]/

/** Schemas that hold other things: roles that may use the queues get every privilege on the schema of the queues. */
const reserved = /^(?:bus|public|information_schema|pg_.*)$/

/**
 * The name of the schema as in the catalogues of PostgreSQL.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function resolveBossSchema(given: unknown): string {
  if (given === undefined) return defaultBossSchema
  if (
    typeof given === 'string' &&
    given !== '' &&
    given.isWellFormed() &&
    Buffer.byteLength(given) <= maxNameBytes &&
    !unusable.test(given) &&
    !reserved.test(given)
  )
    return given
  throw invalidOption(
    `Expected \`bossSchema\` to be the name of a schema for pg-boss alone, 1 to ${maxNameBytes} bytes without quotes, dots, %, $ or \\, and not bus, public or a schema of PostgreSQL, got ${describe(given)}`,
    'bossSchema',
  )
}

/**
 * PostgreSQL keywords that must be quoted as names: the reserved ones, and those that are reserved except as names of
 * functions and types.
 */
const keywords =
  /^(?:all|analy[sz]e|and|any|array|as|asc|asymmetric|authorization|binary|both|case|cast|check|collate|collation|column|concurrently|constraint|create|cross|current_(?:catalog|date|role|schema|time|timestamp|user)|default|deferrable|desc|distinct|do|else|end|except|false|fetch|for|foreign|freeze|from|full|grant|group|having|ilike|in|initially|inner|intersect|into|is|isnull|join|lateral|leading|left|like|limit|localtime|localtimestamp|natural|not|notnull|null|offset|on|only|or|order|outer|overlaps|placing|primary|references|returning|right|select|session_user|similar|some|symmetric|system_user|table|tablesample|then|to|trailing|true|union|unique|user|using|variadic|verbose|when|where|window|with)$/

/**
 * The name as SQL. It is quoted only if necessary, because pg-boss verifies its schema by comparing the text of its
 * functions. Names that would need escaping are refused.
 */
export function quoteBossSchema(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) && !keywords.test(name) ? name : `"${name}"`
}

/** Rewrites the statements of a migration for another schema than the one they name. */
export function forBossSchema(text: string, name: string): string {
  if (name === defaultBossSchema) return text
  return text
    .replaceAll(`${defaultBossSchema}.`, () => `${quoteBossSchema(name)}.`)
    .replaceAll(`'${defaultBossSchema}'`, () => `'${name}'`)
}
