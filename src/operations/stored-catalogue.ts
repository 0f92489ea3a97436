import {
  describeCatalogue,
  type KnownType,
  type TypeDescription,
} from '../events/contracts/catalogue-description.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { SchemaOrigin } from '../events/contracts/json-schema.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { canonical } from '../events/compatibility/schemas/canonical.ts'
import type { Executor } from '../database/database.ts'
import type { JsonSchema } from '../events/contracts/schema-dialect.ts'

/** `last_seen_at` has a precision of one day, so that a start without changes usually writes nothing. */
const seenAgainHours = 24

/** Reads the event types that services have declared. */
export interface DeclaredTypes {
  /** Every version of every type, of each service, by name: the first 10,000. @throws a {@link DatabaseError} */
  list: () => Promise<readonly KnownType[]>
}

/** Types and versions, of all services. */
const maxTypes = 10_000

interface CatalogueRow extends Record<string, unknown> {
  readonly type: string
  readonly version: number
  readonly service: string
  readonly schema: string | null
  readonly schema_origin: SchemaOrigin
  readonly sources: string[] | null
  readonly upcasts_from: number | null
  readonly redact: string[] | null
  readonly seen_lately: boolean
}

/**
 * Writes the new and changed event types of a service to `bus.catalogue`. One statement reads the table; if nothing has
 * changed, nothing is written. Best effort: a missing privilege or a database error does not prevent the bus from
 * starting. Any number of processes may run it concurrently: rows are written in one order, and the last writer wins.
 */
export async function recordCatalogue(
  executor: Executor,
  service: string,
  catalogue: EventCatalogue,
  logger: BusLogger,
): Promise<void> {
  try {
    const described = await describeCatalogue(catalogue)
    if (described.length === 0) return
    const stored = new Map((await readRows(executor, service)).map((row) => [keyOf(row), row]))
    const changed = described.filter((description) => {
      const row = stored.get(keyOf(description))
      return row === undefined || !row.seen_lately || textOf(toKnown(row)) !== textOf(description)
    })
    if (changed.length > 0) await writeRows(executor, service, changed)
  } catch (error) {
    const { code, message } = (error ?? {}) as { code?: string; message?: string }
    logger.debug({ errorCode: code, reason: message }, 'the catalogue could not be recorded')
  }
}

/** Every version of every type that the services of a database have declared. */
export async function readCatalogue(executor: Executor): Promise<readonly KnownType[]> {
  return (await readRows(executor, undefined)).map(toKnown)
}

async function readRows(executor: Executor, service: string | undefined): Promise<readonly CatalogueRow[]> {
  const { rows } = await executor.query<CatalogueRow>(
    `select type, version, service, schema::text as schema, schema_origin, sources, upcasts_from, redact,
       last_seen_at > now() - make_interval(hours => ${seenAgainHours}) as seen_lately
     from bus.catalogue where $1::text is null or service = $1 order by type, version, service limit ${maxTypes}`,
    [service ?? null],
  )
  return rows
}

async function writeRows(
  executor: Executor,
  service: string,
  described: readonly TypeDescription[],
): Promise<void> {
  const rows = described.map(({ type, version, schema, schemaOrigin, sources, upcastsFrom, redact }) => ({
    ...{ type, version, schema: schema ?? null, schema_origin: schemaOrigin },
    ...{ sources: sources ?? null, upcasts_from: upcastsFrom ?? null, redact: redact ?? null },
  }))
  await executor.query(
    `insert into bus.catalogue as c (type, version, service, schema, schema_origin, sources, upcasts_from, redact)
     select r.type, r.version, $1, nullif(r.schema, 'null'), r.schema_origin, r.sources, r.upcasts_from, r.redact
     from jsonb_to_recordset($2::jsonb) as r (type text, version smallint, schema jsonb, schema_origin text, sources text[], upcasts_from smallint, redact text[])
     order by r.type, r.version
     on conflict (type, version, service) do update set
       schema = excluded.schema, schema_origin = excluded.schema_origin, sources = excluded.sources,
       upcasts_from = excluded.upcasts_from, redact = excluded.redact, last_seen_at = clock_timestamp(),
       changed_at = case
         when (c.schema, c.schema_origin, c.sources, c.upcasts_from, c.redact)
           is distinct from (excluded.schema, excluded.schema_origin, excluded.sources, excluded.upcasts_from, excluded.redact)
         then clock_timestamp() else c.changed_at end`,
    [service, JSON.stringify(rows)],
  )
}

function keyOf({ type, version }: { readonly type: string; readonly version: number }): string {
  return `${type}@${version}`
}

function toKnown(row: CatalogueRow): KnownType {
  return {
    type: row.type,
    version: row.version,
    service: row.service,
    schema: row.schema === null ? undefined : (JSON.parse(row.schema) as JsonSchema),
    schemaOrigin: row.schema_origin,
    sources: row.sources ?? undefined,
    upcastsFrom: row.upcasts_from ?? undefined,
    redact: row.redact ?? undefined,
  }
}

function textOf({ schema, schemaOrigin, sources, upcastsFrom, redact }: TypeDescription): string {
  return canonical([schema, schemaOrigin, sources, upcastsFrom, redact])
}
