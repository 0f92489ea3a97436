import { createHash } from 'node:crypto'
import { forBossSchema } from '../../database/boss-schema.ts'
import type { Migration } from '../../migrations/shipped-sql.ts'

/** The statements of the migrations that define functions and views: the newest of each. */
export interface ShippedDefinitions {
  /**
   * The statement for a function, by the definition that is expected of it. Undefined if it is not known.
   *
   * @param name - with the types of its arguments
   */
  readonly functionSql: (name: string, definition: string) => string | undefined
  readonly viewSql: (name: string) => string | undefined
  /** The expected definition of an object in a database whose pg-boss is in this schema. */
  readonly inBossSchema: (definition: string) => string
  /** The definition of `bus.uuid_v7` where it was made by a server that has none of its own: before PostgreSQL 18. */
  readonly emulatedUuid: string
}

/** What a statement begins with, behind its comments. */
const head = /^(?:(do) |create (?:or replace )?(function|view|aggregate) bus\.(\w+))/im
const dollarBody = /\bas (\$\w*\$)([\s\S]*?)\1/i
const bodyHash = /\bbody ([0-9a-f]{32})$/

export function readShippedDefinitions(
  migrations: readonly Migration[],
  bossSchemaName: string,
): ShippedDefinitions {
  const byHash = new Map<string, string>()
  const byName = new Map<string, string>()
  const views = new Map<string, string>()
  /** From the hash of a body as it was shipped to the one with the schema of pg-boss. */
  const hashes = new Map<string, string>()
  let emulatedUuid = ''
  for (const statement of migrations.flatMap(({ text }) => text.split('--> statement-breakpoint'))) {
    const found = head.exec(statement)
    if (found === null) continue
    const [, isBlock, kind, name = ''] = found
    const sql = forBossSchema(statement.slice(found.index).trim(), bossSchemaName).replace(
      /^create (?:or replace )?/i,
      'create or replace ',
    )
    const body = dollarBody.exec(statement)?.[2]
    if (isBlock !== undefined) {
      if (body === undefined || !statement.includes('function bus.uuid_v7()')) continue
      byName.set('uuid_v7', sql)
      emulatedUuid = `function () returns uuid plpgsql volatile set search_path=pg_catalog, pg_temp body ${hashOf(body)}`
    } else if (kind?.toLowerCase() === 'view') views.set(name, sql)
    else if (body === undefined) byName.set(name, sql)
    else {
      const own = hashOf(forBossSchema(body, bossSchemaName))
      hashes.set(hashOf(body), own)
      byHash.set(own, sql)
    }
  }
  return {
    functionSql(name, definition) {
      const [, hash] = bodyHash.exec(definition) ?? []
      return hash === undefined ? byName.get(name.slice(0, name.indexOf('('))) : byHash.get(hash)
    },
    viewSql: (name) => views.get(name),
    inBossSchema: (definition) =>
      forBossSchema(definition, bossSchemaName).replace(
        bodyHash,
        (_, hash: string) => `body ${hashes.get(hash) ?? hash}`,
      ),
    emulatedUuid,
  }
}

/** PostgreSQL's `md5`, of a body that it stores as it is. */
function hashOf(body: string): string {
  return createHash('md5').update(body).digest('hex')
}
