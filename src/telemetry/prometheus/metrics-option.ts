import { limits } from '../../foundation/limits.ts'
import { assertObject, booleanOption, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'

/** The option `metrics` of `createBus`: of `bus.metrics()`. */
export interface MetricsOption {
  /**
   * Whether metrics of the database are read, which are the same in all processes: depth, lag, dead letters and more. They are read at most
   * every ten seconds.
   * @defaultValue `true`
   */
  readonly database?: boolean | undefined
  /**
   * How many tenants have series of their own, 0 to 100: those of which most events wait. The others are one series, `_OTHER`.
   * @defaultValue `0`: none is named, and they are not counted
   */
  readonly tenants?: number | undefined
}

export interface ResolvedMetrics {
  readonly database: boolean
  readonly tenantCount: number
  /** Whether the process counts from the start on, not only from when it is first asked. */
  readonly isOn: boolean
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveMetrics(option: MetricsOption | undefined): ResolvedMetrics {
  const given = option === undefined ? {} : option
  assertObject('`metrics` to be like { database, tenants }', given)
  refuseUnknownKeys(given, ['database', 'tenants'], '`metrics`')
  return Object.freeze({
    database: booleanOption('metrics.database', given.database, true),
    tenantCount: integerOption('metrics.tenants', given.tenants, limits['metrics.tenants']),
    isOn: option !== undefined,
  })
}
