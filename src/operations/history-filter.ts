import { lowestId } from '../events/event-id.ts'
import { checkPattern } from '../events/pattern.ts'
import { limits } from '../foundation/limits.ts'
import {
  booleanOption,
  describe,
  idOption,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
  textOption,
  spanOption,
} from '../foundation/options.ts'
import { checkStatus, type CheckedStatus, type StatusFilter } from './delivery-status.ts'

/** Which events of the log to find, and in which order. All that is given must hold. */
export interface EventFilter<T extends string = string> {
  /** One type, or several. Any name is taken, because another service may publish it: a misspelt one finds nothing. */
  readonly type?: T | readonly T[] | undefined
  /** Patterns such as `payment.*` and `**`, as in a subscription; one of them must match. */
  readonly pattern?: string | readonly string[] | undefined
  /** The service that published it. */
  readonly source?: string | undefined
  readonly subject?: string | undefined
  readonly correlationId?: string | undefined
  /** The id of the event that caused it. */
  readonly causationId?: string | undefined
  /** The business id that it was published with. */
  readonly eventId?: string | undefined
  readonly idempotencyKey?: string | undefined
  /** No index has it: give the tenant too, whose log is then read. */
  readonly orderingKey?: string | undefined
  /**
   * Where it is for some subscription, or for the one that is named: `'dead'`, or `{ state: 'dead', subscription: 'open-case' }`. Takes the
   * words of hand-written outbox tables too.
   */
  readonly status?: StatusFilter | undefined
  /**
   * A part of the payload, as PostgreSQL's `@>` compares it. Only events of types of the catalogue are compared, and none of a type whose
   * `redact` names something in this part: `find` refuses to leave out types, `search` names them. Erased payloads are not found.
   */
  readonly payload?: Readonly<Record<string, unknown>> | undefined
  /** Published at this time or later, judged by the id. Ranges without events cost nothing. */
  readonly from?: Date | undefined
  /** Published before this time. */
  readonly to?: Date | undefined
  /** The id of the last event of the previous page, or `next` of a search; this page continues after it, in the same order. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
  /** @defaultValue `'newest'` first */
  readonly order?: 'newest' | 'oldest' | undefined
  /** See {@link PayloadOptions}. */
  readonly exactNumbers?: boolean | undefined
}

/** How payloads are returned. */
export interface PayloadOptions {
  /**
   * Whether numbers that no JavaScript number is equal to, such as integers beyond 2^53, are given as texts of their digits. Otherwise they
   * are the nearest number. Only plain SQL and other languages can publish them.
   * @defaultValue `false`
   */
  readonly exactNumbers?: boolean | undefined
}

/** The filter for operators, who see all tenants. */
export interface OperatorFilter<T extends string = string> extends EventFilter<T> {
  readonly tenantId?: string | undefined
}

/** What a search takes besides the filter. */
export interface SearchLimit {
  /**
   * How many events of the log a search reads at most where no index answers: 1 to 1,000,000. More take longer. Events that are read by their
   * tenant or type, each from a place of its own, count as eight.
   * @defaultValue `10000`
   */
  readonly readLimit?: number | undefined
}

type Given = Readonly<Record<keyof OperatorFilter | keyof SearchLimit, unknown>>

export interface CheckedFilter {
  readonly tenantId: string | undefined
  readonly types: readonly string[] | undefined
  /** Undefined if every type matches. */
  readonly patterns: readonly string[] | undefined
  readonly source: string | undefined
  readonly subject: string | undefined
  readonly correlationId: string | undefined
  readonly causationId: string | undefined
  readonly eventId: string | undefined
  readonly idempotencyKey: string | undefined
  readonly orderingKey: string | undefined
  readonly status: CheckedStatus | undefined
  readonly payload: object | undefined
  /** The first id of the time span. */
  readonly low: string
  /** The first id after it. */
  readonly high: string
  readonly after: string | undefined
  readonly limit: number
  readonly order: 'newest' | 'oldest'
  readonly readLimit: number
  readonly exactNumbers: boolean
}

const filterKeys = [
  'type',
  'pattern',
  'source',
  'subject',
  'correlationId',
  'causationId',
  'eventId',
  'idempotencyKey',
  'orderingKey',
  'status',
  'payload',
  'from',
  'to',
  'after',
  'limit',
  'order',
  'exactNumbers',
]

export const lowestEventId = '00000000-0000-0000-0000-000000000000'
export const highestEventId = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

/**
 * @param given - the filter, and of a search its limit
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`
 */
export function checkFilter(
  given: unknown,
  call: 'events.find' | 'events.search',
  isOperator: boolean,
): CheckedFilter {
  assertOptions(given, call)
  const known = [...filterKeys, ...(call === 'events.search' ? ['readLimit'] : [])]
  refuseUnknownKeys(given, isOperator ? [...known, 'tenantId'] : known, call)
  const filter = given as Given
  const { from, to } = spanOption(filter)
  const { type, after, limit, order = 'newest', payload, status, causationId } = filter
  if (order !== 'newest' && order !== 'oldest')
    throw invalidOption(`Expected \`order\` to be 'newest' or 'oldest', got ${describe(order)}`, 'order')
  return {
    tenantId: optionalText('tenantId', filter.tenantId),
    types: type === undefined ? undefined : checkTypes(type),
    patterns: filter.pattern === undefined ? undefined : checkPatterns(filter.pattern),
    source: optionalText('source', filter.source, limits.sourceLength),
    subject: optionalText('subject', filter.subject, limits.subjectLength),
    correlationId: optionalText('correlationId', filter.correlationId),
    causationId: causationId === undefined ? undefined : idOption('causationId', causationId),
    eventId: optionalText('eventId', filter.eventId),
    idempotencyKey: optionalText('idempotencyKey', filter.idempotencyKey),
    orderingKey: optionalText('orderingKey', filter.orderingKey),
    status: status === undefined ? undefined : checkStatus(status),
    payload: payload === undefined ? undefined : checkPart(payload),
    low: from === undefined ? lowestEventId : lowestId(from.getTime()),
    high: to === undefined ? highestEventId : lowestId(to.getTime()),
    after: after === undefined ? undefined : idOption('after', after),
    limit: integerOption('limit', limit, limits.listLimit),
    order,
    readLimit: integerOption('readLimit', filter.readLimit, limits.readLimit),
    exactNumbers: booleanOption('exactNumbers', filter.exactNumbers, false),
  }
}

/** The bounds of a time span as ids; without a lower bound, the lowest id. @throws a {@link ConfigurationError} */
export function checkSpan(given: unknown, call: string): { readonly from: string; readonly to: string } {
  assertOptions(given, call)
  refuseUnknownKeys(given, ['from', 'to'], call)
  const { from, to } = spanOption(given)
  return {
    from: lowestId(from?.getTime() ?? 0),
    to: to === undefined ? highestEventId : lowestId(to.getTime()),
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function assertOptions(given: unknown, call: string): asserts given is object {
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalidOption(`Expected options of ${call}, got ${describe(given)}`)
}

function optionalText(name: string, value: unknown, max: number = limits.keyLength): string | undefined {
  return value === undefined ? undefined : textOption(name, value, { max })
}

function listOf(name: string, value: unknown): unknown[] {
  const list = (Array.isArray(value) ? value : [value]) as unknown[]
  if (list.length > 0 && list.length <= limits.filterTypeCount) return list
  throw invalidOption(
    `Expected \`${name}\` to be 1 to ${limits.filterTypeCount} ${name}s, got ${list.length}`,
    name,
  )
}

function checkTypes(type: unknown): string[] {
  const types = listOf('type', type).map((each) => {
    const name = textOption('type', each, { max: limits.keyLength })
    if (name.includes('*'))
      throw invalidOption(
        `Expected \`type\` to be the name of a type, not a pattern, got ${describe(name)}. Patterns go into \`pattern\``,
        'type',
      )
    return name
  })
  return [...new Set(types)]
}

function checkPatterns(given: unknown): string[] | undefined {
  const patterns = listOf('pattern', given).map((pattern) => {
    checkPattern(pattern)
    return pattern
  })
  return patterns.includes('**') ? undefined : patterns
}

/** A part of a payload as JSON. */
function checkPart(payload: unknown): object {
  if (payload !== null && typeof payload === 'object' && !Array.isArray(payload)) {
    let text: string | undefined
    try {
      text = JSON.stringify(payload)
    } catch {
      // Circular, or with a bigint.
    }
    // PostgreSQL's jsonb has neither NUL characters nor lone surrogates.
    if (
      text !== undefined &&
      text.length <= limits.payloadFilterLength &&
      !/\\u(?:0000|d[89a-f])/i.test(text)
    )
      return JSON.parse(text) as object
  }
  throw invalidOption(
    `Expected \`payload\` to be an object of at most ${limits.payloadFilterLength} characters as JSON: a part of a payload`,
    'payload',
  )
}
