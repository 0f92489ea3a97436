import type pg from 'pg'
import { DatabaseError } from '../foundation/errors.ts'
import type { BusClient } from '../database/bus-client.ts'
import type { Database, Executor } from '../database/database.ts'
import { toBusError } from '../database/database-errors.ts'
import { beginOn, beginReading } from '../database/session-settings.ts'

/** Maximum duration of one statement of a tenant. */
const statementLimitSeconds = 30

/**
 * Begins a tenant's scope in one round trip: a read-only transaction as `bus_tenant`, with the tenant set. The tenant
 * id is sent as hexadecimal digits, so that no character of it can become part of the statement, and no setting for
 * backslashes in literals can change it.
 */
function scopeSql(tenantId: string): string {
  const hex = Buffer.from(tenantId, 'utf8').toString('hex')
  return `${beginReading};
set local idle_in_transaction_session_timeout = '10s'; set local statement_timeout = '${statementLimitSeconds}s';
select pg_catalog.set_config('bus.tenant_id', pg_catalog.convert_from(pg_catalog.decode('${hex}', 'hex'), 'UTF8'), true);
set local role bus_tenant`
}

/**
 * Runs `work` in the scope of a tenant. It ends with a rollback that is not awaited: nothing can be lost, and the
 * settings of the scope are reset.
 *
 * @param more - statements to start it with, in the same round trip
 * @throws a {@link DatabaseError} `BUS_ROLE_MISSING`
 */
export async function inTenantScope<T>(
  database: Database,
  tenantId: string,
  work: (client: pg.PoolClient) => Promise<T>,
  more = '',
): Promise<T> {
  const client = (await database.pool.connect().catch((error: unknown) => {
    throw toBusError(error)
  })) as pg.PoolClient & BusClient
  client.inReadOnlyTransaction = true
  let entered = false
  try {
    await client.query(beginOn(client, `${scopeSql(tenantId)}; ${more}`))
    entered = true
    return await work(client)
  } catch (error) {
    throw entered ? error : toEntryError(error)
  } finally {
    // A statement may have taken a session-level lock, which outlives the transaction.
    void client.query('rollback; select pg_catalog.pg_advisory_unlock_all()').then(
      () => {
        client.inReadOnlyTransaction = false
        client.release()
      },
      () => client.release(true),
    )
  }
}

/** Runs each statement in the scope of a tenant, in a transaction of its own. */
export function scopedExecutor(database: Database, tenantId: string): Executor {
  return {
    query: async <R extends pg.QueryResultRow>(text: string, values?: unknown[]) =>
      inTenantScope(database, tenantId, async (client) => client.query<R>(text, values)).catch(
        (error: unknown) => {
          throw toBusError(error)
        },
      ),
  }
}

function toEntryError(error: unknown): Error {
  const busError = toBusError(error)
  const { sqlState } = busError as { sqlState?: unknown }
  // invalid_parameter_value: the role does not exist. insufficient_privilege: this role may not become it.
  if (sqlState !== '22023' && sqlState !== '42501' && sqlState !== '42704') return busError
  return new DatabaseError(
    'BUS_ROLE_MISSING',
    'The role that this bus connects as cannot become `bus_tenant`. Where that role is there, grant it: `grant bus_tenant to …`; ' +
      'where it is not, run bus.migrate() as the owner, or what it warns of',
    { cause: busError, sqlState },
  )
}
