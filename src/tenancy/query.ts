import type pg from 'pg'
import { BusError, TenantScopeError } from '../foundation/errors.ts'
import { kindOf, invalidOption } from '../foundation/options.ts'
import { isError } from '../foundation/cross-realm.ts'
import type { Database } from '../database/database.ts'
import { toBusError } from '../database/database-errors.ts'
import type { HandlerTransaction } from '../database/drizzle-handle.ts'
import { inTenantScope } from './scope.ts'

/** Drizzle restricted to a tenant. */
export type TenantDatabase = HandlerTransaction

/** How reading statements, and savepoints for nested transactions, start. */
const readingStatement =
  /^(?:select|with|values|table|explain|show|savepoint|release\s+savepoint|rollback\s+to\s+savepoint)\b/i

const leavingBlanks = /^(?:\s|--[^\n]*(?:\n|$)|\/\*[^]*?\*\/)+/

/**
 * Runs `work` in the scope of a tenant. Statements are sent one at a time, each in a message that cannot contain a
 * second one, and only if they read. When `work` has finished, the role and the tenant must be unchanged, or its result
 * is discarded.
 *
 * @throws a {@link TenantScopeError}
 */
export async function runTenantQuery<T, Tx>(
  database: Database,
  tenantId: string,
  work: (db: Tx) => Promise<T>,
): Promise<T> {
  if (typeof work !== 'function')
    throw invalidOption(`Expected a function that takes a Drizzle database, got ${kindOf(work)}`)
  return inTenantScope(
    database,
    tenantId,
    async (client) => {
      let closed = false
      let last: Promise<unknown> = Promise.resolve()

      async function query(config: string | { readonly text: string }, values?: unknown[]): Promise<unknown> {
        if (closed)
          throw new TenantScopeError(
            'A statement was sent after the function had finished: await every statement',
          )
        const given = typeof config === 'string' ? { text: config } : config
        if (!readingStatement.test(given.text.replace(leavingBlanks, '')))
          throw new TenantScopeError(
            'Expected statements that read, such as a select: this is a tenant’s scope',
          )
        // Without values it would be sent as a text that may contain several statements.
        const answer = last.then(async () =>
          client.query({ ...given, queryMode: 'extended' } as pg.QueryConfig, values ?? []),
        )
        last = answer.catch(() => {})
        return answer
      }

      try {
        const result = await work((await database.drizzle.open(query)) as Tx).catch(unwrap)
        closed = true
        await last
        await assertScope(client, tenantId)
        return result
      } finally {
        closed = true
        await last
      }
    },
    ownPath,
  )
}

/** The tables of the service are found as on its own connections. */
const ownPath = 'set local search_path to default'

/** Drizzle's own error lists the parameters; its cause is the error of the bus or of the database. */
function unwrap(error: unknown): never {
  const { cause } = error as { cause?: unknown }
  if (cause instanceof BusError) throw cause
  throw isError(error) && 'params' in error && isError(cause) ? toBusError(error) : error
}

/** A failed transaction cannot be queried; if `work` has caught the error, its result was read before. */
async function assertScope(client: pg.PoolClient, tenantId: string): Promise<void> {
  const { rows } = await client
    .query<{ intact: boolean }>(
      `select current_user operator(pg_catalog.=) 'bus_tenant' and bus.current_tenant() operator(pg_catalog.=) $1 as intact`,
      [tenantId],
    )
    .catch((error: unknown) => {
      if ((error as { code?: unknown }).code === '25P02') return { rows: [{ intact: true }] }
      throw error
    })
  if (rows[0]?.intact !== true)
    throw new TenantScopeError('The function changed the role or the tenant: its result is discarded')
}
