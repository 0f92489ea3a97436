import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  describe,
  idOption,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
  textOption,
  spanOption,
} from '../../foundation/options.ts'

/** `blocked` and `parked`: it holds its key, and the events behind it wait, or are dead letters too. `dead`: it holds none. */
export type DeadLetterState = 'dead' | 'blocked' | 'parked'

/** Which dead letters are meant: those that satisfy all that is given. */
export interface DeadLetterConditions {
  readonly subscription?: string | undefined
  /** The same for all errors that are alike: from {@link DeadLetterGroup} or {@link DeadLetter}. */
  readonly fingerprint?: string | undefined
  /** The class of the last error, such as `TypeError`. */
  readonly errorName?: string | undefined
  /** The `code` of the last error, such as `ECONNREFUSED`. */
  readonly errorCode?: string | undefined
  readonly state?: DeadLetterState | undefined
  /** Those that became dead letters at this time or later. */
  readonly from?: Date | undefined
  /** Those that became dead letters before this time. */
  readonly to?: Date | undefined
}

/** Which dead letters of a tenant to read. */
export interface TenantDeadLetterFilter extends DeadLetterConditions {
  /** A type of events, or several; a misspelt one finds nothing. At most 10,000 dead letters are looked at: a shorter page than `limit` may not be the last one. */
  readonly type?: string | readonly string[] | undefined
  /** Only dead letters after this one: the `cursor` of the last one of the page before. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** Which dead letters to read. */
export interface DeadLetterFilter extends TenantDeadLetterFilter {
  readonly tenantId?: string | undefined
  /**
   * Those of this replay, by the id of its operation, in place of the others: events that a subscription has had, and that failed their last
   * attempt in the replay. They cannot be redriven; another replay delivers them.
   */
  readonly replayId?: string | undefined
}

/** Which dead letters of a tenant to group. */
export interface TenantDeadLetterGroupFilter extends DeadLetterConditions {
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** Which dead letters to group. */
export interface DeadLetterGroupFilter extends TenantDeadLetterGroupFilter {
  readonly tenantId?: string | undefined
}

/** A filter as the functions of drizzle/0009_dead_letters.sql take it. */
export interface StoredFilter {
  readonly subscription?: string | undefined
  readonly subscriptionId?: number | undefined
  readonly tenantId?: string | undefined
  readonly fingerprint?: string | undefined
  readonly errorName?: string | undefined
  readonly errorCode?: string | undefined
  readonly states?: readonly DeadLetterState[] | undefined
  readonly types?: readonly string[] | undefined
  readonly eventIds?: readonly string[] | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
  /** Up to and including this time. */
  readonly through?: string | undefined
  readonly afterTime?: string | undefined
  readonly afterEvent?: string | undefined
  readonly afterSubscription?: number | undefined
}

/** A filter of a list. */
interface CheckedFilter {
  readonly stored: StoredFilter
  readonly replayId: string | undefined
  readonly limit: number
}

const states: readonly DeadLetterState[] = ['dead', 'blocked', 'parked']

export const conditionNames = [
  'subscription',
  'fingerprint',
  'errorName',
  'errorCode',
  'state',
  'from',
  'to',
] as const

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkFilter(filter: DeadLetterFilter, call: string, isTenants = false): CheckedFilter {
  assertObject('a filter like { subscription, limit }', filter)
  refuseUnknownKeys(
    filter,
    [...conditionNames, 'type', 'after', 'limit', ...(isTenants ? [] : ['tenantId', 'replayId'])],
    call,
  )
  const { replayId } = filter
  return {
    stored: { ...storedConditions(filter), ...storedTypes(filter.type), ...storedCursor(filter.after) },
    replayId: replayId === undefined ? undefined : idOption('replayId', replayId),
    limit: integerOption('limit', filter.limit, limits.listLimit),
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkGroupFilter(
  filter: DeadLetterGroupFilter,
  isTenants = false,
): { readonly stored: StoredFilter; readonly limit: number } {
  assertObject('a filter like { subscription, limit }', filter)
  const known = [...conditionNames, 'limit', ...(isTenants ? [] : ['tenantId'])]
  refuseUnknownKeys(filter, known, 'deadLetters.groups')
  return { stored: storedConditions(filter), limit: integerOption('limit', filter.limit, limits.listLimit) }
}

/** The conditions of a filter whose keys are known. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function storedConditions(
  given: DeadLetterConditions & { readonly tenantId?: string | undefined },
): StoredFilter {
  const { state } = given
  const { from, to } = spanOption(given)
  if (state !== undefined && !states.includes(state))
    throw invalidOption(
      `Expected \`state\` to be one of ${states.join(', ')}, got ${describe(state)}`,
      'state',
    )
  const text = (name: keyof typeof given, max: number): string | undefined =>
    given[name] === undefined ? undefined : textOption(name, given[name], { max })
  return {
    subscription: text('subscription', limits.subscriptionNameLength),
    tenantId: text('tenantId', limits.keyLength),
    fingerprint: text('fingerprint', limits.keyLength),
    errorName: text('errorName', limits.keyLength),
    errorCode: text('errorCode', limits.keyLength),
    states: state === undefined ? undefined : [state],
    from: from?.toISOString(),
    to: to?.toISOString(),
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function storedTypes(type: unknown): Pick<StoredFilter, 'types'> {
  if (type === undefined) return {}
  const types: readonly unknown[] = Array.isArray(type) ? type : [type]
  if (types.length === 0 || types.length > limits.filterTypeCount)
    throw invalidOption(
      `Expected \`type\` to be 1 to ${limits.filterTypeCount} types of events, got ${types.length}`,
      'type',
    )
  return { types: types.map((each) => textOption('type', each, { max: limits.typeLength })) }
}

const cursorShape =
  /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)_([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_(-?\d{1,10})$/

/** The position after a dead letter: the time it became one, its event and its subscription, or what stands for it in a replay. */
function storedCursor(cursor: unknown): Pick<StoredFilter, 'afterTime' | 'afterEvent' | 'afterSubscription'> {
  if (cursor === undefined) return {}
  const parts = typeof cursor === 'string' ? cursorShape.exec(cursor) : null
  if (parts === null)
    throw invalidOption(
      `Expected \`after\` to be the \`cursor\` of a dead letter, got ${describe(cursor)}`,
      'after',
    )
  return { afterTime: parts[1], afterEvent: parts[2], afterSubscription: Number(parts[3]) }
}
