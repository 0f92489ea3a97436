import type { Executor } from '../database/database.ts'
import { ConfigurationError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import { assertObject, describe, idOption, integerOption, refuseUnknownKeys } from '../foundation/options.ts'
import type { Operation } from './operation.ts'
import { commonFields, type OperationRow } from './operation-row.ts'

/** An operation over the events of one tenant, as that tenant sees it. */
export interface TenantOperation extends Omit<
  Operation,
  'kind' | 'by' | 'reason' | 'stateBy' | 'options' | 'error'
> {
  readonly kind: 'redrive' | 'discard' | 'replay'
  /** Why it has stopped by itself. */
  readonly stateReason: string | undefined
}

/** Reads the operations over a tenant's events alone, whoever has started them, without who that was. */
export interface TenantOperations {
  /** The operations, latest first, among the latest 10,000 of all tenants. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
  list: (filter?: {
    /** Only operations older than this one: the `id` of the last one of the page before. */
    readonly after?: string | undefined
    /** 1 to 1,000. @defaultValue `100` */
    readonly limit?: number | undefined
  }) => Promise<TenantOperation[]>
  /** @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`, `BUS_INVALID_OPTION` */
  get: (id: string) => Promise<TenantOperation>
}

interface TenantRow extends OperationRow<TenantOperation['kind']> {
  readonly stopped_because: string | null
}

/** @param executor - runs statements in the scope of the tenant */
export function createTenantOperations(executor: Executor): TenantOperations {
  async function read(id: string | null, after: string | null, limit: number): Promise<TenantOperation[]> {
    const { rows } = await executor.query<TenantRow>(
      'select * from bus.tenant_operations($1::uuid, $2::uuid, $3::int)',
      [id, after, limit],
    )
    return rows.map(toOperation)
  }

  return {
    async list(filter = {}) {
      assertObject('a filter like { after, limit }', filter)
      refuseUnknownKeys(filter, ['after', 'limit'], 'tenant.operations.list')
      const { after, limit } = filter
      return read(
        null,
        after === undefined ? null : idOption('after', after),
        integerOption('limit', limit, limits.listLimit),
      )
    },
    async get(id) {
      const [found] = await read(idOption('id', id), null, 1)
      if (found !== undefined) return found
      throw new ConfigurationError(
        'BUS_OPERATION_NOT_FOUND',
        `There is no operation ${describe(id)} over the events of this tenant`,
      )
    },
  }
}

function toOperation(row: TenantRow): TenantOperation {
  return { ...commonFields(row), stateReason: row.stopped_because ?? undefined }
}
