import { lowestId } from '../events/event-id.ts'
import { limits } from '../foundation/limits.ts'
import {
  describe,
  idOption,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
  textOption,
} from '../foundation/options.ts'
import { isDate } from '../foundation/cross-realm.ts'

/** Which events of the log to find, and in which order. */
export interface EventFilter<T extends string = string> {
  /** One type, or several. */
  readonly type?: T | readonly T[] | undefined
  readonly correlationId?: string | undefined
  /** Published at this time or later, judged by the id. Ranges without events cost nothing. */
  readonly from?: Date | undefined
  /** Published before this time. */
  readonly to?: Date | undefined
  /** The id of the last event of the previous page; this page continues after it, in the same order. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
  /** @defaultValue `'newest'` first */
  readonly order?: 'newest' | 'oldest' | undefined
}

/** The filter for operators, who see all tenants. */
export interface OperatorFilter<T extends string = string> extends EventFilter<T> {
  readonly tenantId?: string | undefined
}

/** A condition of a statement and its values. */
interface Condition {
  readonly text: string
  readonly values: readonly unknown[]
}

type Given = Readonly<Record<keyof OperatorFilter, unknown>>

export interface CheckedFilter {
  readonly where: Condition
  readonly limit: number
  readonly order: 'newest' | 'oldest'
}

const filterKeys = ['type', 'correlationId', 'from', 'to', 'after', 'limit', 'order'] as const

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkFilter(given: unknown, call: string, isOperator: boolean): CheckedFilter {
  assertOptions(given, call)
  refuseUnknownKeys(given, isOperator ? [...filterKeys, 'tenantId'] : filterKeys, call)
  const { type, correlationId, from, to, after, limit, order = 'newest', tenantId } = given as Given
  if (order !== 'newest' && order !== 'oldest')
    throw invalidOption(`Expected \`order\` to be 'newest' or 'oldest', got ${describe(order)}`, 'order')
  const conditions: string[] = []
  const values: unknown[] = []
  const add = (condition: string, value: unknown): void => {
    values.push(value)
    conditions.push(condition.replace('?', `$${values.length}`))
  }
  if (tenantId !== undefined)
    add('e.tenant_id = ?', textOption('tenantId', tenantId, { max: limits.keyLength }))
  if (type !== undefined) add('e.type = any(?::text[])', checkTypes(type))
  if (correlationId !== undefined)
    add('e.correlation_id = ?', textOption('correlationId', correlationId, { max: limits.keyLength }))
  if (from !== undefined) add('e.id >= ?::uuid', lowestId(checkTime('from', from).getTime()))
  if (to !== undefined) add('e.id < ?::uuid', lowestId(checkTime('to', to).getTime()))
  if (after !== undefined)
    add(order === 'newest' ? 'e.id < ?::uuid' : 'e.id > ?::uuid', idOption('after', after))
  return {
    where: { text: conditions.length === 0 ? 'true' : conditions.join(' and '), values },
    limit: integerOption('limit', limit, limits.listLimit),
    order,
  }
}

/** The bounds of a time span as ids; without a lower bound, the lowest id. @throws a {@link ConfigurationError} */
export function checkSpan(given: unknown, call: string): { readonly from: string; readonly to: string } {
  assertOptions(given, call)
  refuseUnknownKeys(given, ['from', 'to'], call)
  const { from, to } = given as Given
  return {
    from: lowestId(from === undefined ? 0 : checkTime('from', from).getTime()),
    to: to === undefined ? 'ffffffff-ffff-ffff-ffff-ffffffffffff' : lowestId(checkTime('to', to).getTime()),
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function assertOptions(given: unknown, call: string): asserts given is object {
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalidOption(`Expected options of ${call}, got ${describe(given)}`)
}

function checkTypes(type: unknown): string[] {
  const types = (Array.isArray(type) ? type : [type]) as unknown[]
  if (types.length === 0 || types.length > limits.filterTypeCount)
    throw invalidOption(
      `Expected \`type\` to be 1 to ${limits.filterTypeCount} types, got ${types.length}`,
      'type',
    )
  return types.map((each) => {
    const name = textOption('type', each, { max: limits.keyLength })
    if (name.includes('*'))
      throw invalidOption(
        `Expected \`type\` to be the name of a type, not a pattern, got ${describe(name)}`,
        'type',
      )
    return name
  })
}

export function checkTime(name: string, value: unknown): Date {
  const year = isDate(value) ? value.getUTCFullYear() : Number.NaN
  if (year >= 1970 && year <= 9999) return value as Date
  throw invalidOption(`Expected \`${name}\` to be a Date from 1970 to 9999, got ${describe(value)}`)
}
