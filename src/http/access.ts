import { actorLength } from '../audit/audit.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  describe,
  invalidOption,
  refuseUnknownKeys,
  suggestName,
  textOption,
} from '../foundation/options.ts'

/** The actions that only read: names of methods of the bus. */
export const apiReads = [
  'health',
  'stats',
  'tenant.stats',
  'queries.depth',
  'queries.lag',
  'queries.throughput',
  'queries.latency',
  'queries.deadByError',
  'queries.retries',
  'queries.active',
  'queries.instances',
  'queries.subscriptionState',
  'queries.tenants',
  'queries.blockedKeys',
  'queries.scheduled',
  'queries.storage',
  'queries.recentFailures',
  'queries.eventsByKey',
  'events.find',
  'events.search',
  'events.tail',
  'events.get',
  'events.states',
  'events.trace',
  'events.traceTree',
  'deliveries',
  'explain',
  'lookup',
  'deadLetters.list',
  'deadLetters.groups',
  'deadLetters.get',
  'deadLetters.preview',
  'subscriptions.list',
  'subscriptions.get',
  'blockedKeys.list',
  'quarantine.list',
  'quarantine.get',
  'quarantine.preview',
  'operations.list',
  'operations.get',
  'replay.preview',
  'audit.list',
  'retention.state',
  'retention.archives',
  'retention.pendingErasures',
  'prune.preview',
  'erasures.list',
  'catalogue.list',
  'canary.last',
] as const

/** The actions that change something: names of methods of the bus. */
export const apiChanges = [
  'deadLetters.redrive',
  'deadLetters.redriveEdited',
  'deadLetters.discard',
  'replay',
  'operations.pause',
  'operations.resume',
  'operations.cancel',
  'subscriptions.pause',
  'subscriptions.resume',
  'subscriptions.setOptions',
  'subscriptions.rename',
  'subscriptions.remove',
  'blockedKeys.release',
  'quarantine.retry',
  'quarantine.discard',
  'cancel',
  'erase',
  'prune',
  'retention.setPartitionSpan',
  'retention.rewriteArchives',
  'canary',
  'publishByHand',
] as const

/** What a request may ask for: the name of a method of the bus. */
export type ApiAction = (typeof apiReads)[number] | (typeof apiChanges)[number]

/** Only for those to whom it is granted by name: `'all'` does not grant it. */
const namedOnly: ReadonlySet<ApiAction> = new Set(['publishByHand'])

/** Who sends a request, and what they may do. */
export interface ApiGrant {
  /** The person or program, 1 to 255 characters: recorded in `bus.audit` with each change. */
  readonly by: string
  /**
   * `'read'`: all reads. `'all'`: all reads and changes, but for `publishByHand`, which is granted by name. A list: what it names, where
   * `'read'` stands for all reads.
   */
  readonly allow: 'read' | 'all' | readonly ('read' | 'all' | ApiAction)[]
  /**
   * The tenant that they belong to. Reads then run under row-level security as that tenant, or have it as a condition, changes concern its
   * events alone, and what has no form for one tenant is refused. Operators leave it out: undefined is refused, because a person whose tenant
   * is not known is no operator. @defaultValue all tenants
   */
  readonly tenantId?: string
}

/** A grant that has been checked. */
export interface CheckedGrant {
  readonly by: string
  readonly tenantId: string | undefined
  readonly allows: (action: ApiAction) => boolean
}

export const isRead = (action: ApiAction): boolean => (apiReads as readonly ApiAction[]).includes(action)

const words: readonly string[] = ['read', 'all', ...apiReads, ...apiChanges]

/**
 * Checks what the access function of the app has returned; undefined if it grants nothing.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, which is a mistake of the app
 */
export function checkGrant(returned: unknown): CheckedGrant | undefined {
  if (returned === undefined || returned === null || returned === false) return undefined
  assertObject('`api.access` to return undefined, or a grant like { by, allow }', returned)
  refuseUnknownKeys(returned, ['by', 'allow', 'tenantId'], 'what `api.access` returns')
  const { by, allow, tenantId } = returned as Readonly<Record<string, unknown>>
  const isOfTenant = 'tenantId' in returned
  const allowed = checkAllow(allow)
  return Object.freeze({
    by: textOption('by', by, actorLength),
    tenantId: isOfTenant ? textOption('tenantId', tenantId, { max: limits.keyLength }) : undefined,
    allows: (action: ApiAction) =>
      allowed.has(action) ||
      (isRead(action) && allowed.has('read')) ||
      (allowed.has('all') && !namedOnly.has(action)),
  })
}

function checkAllow(given: unknown): ReadonlySet<string> {
  const list: readonly unknown[] = Array.isArray(given) ? given : [given]
  for (const word of list) {
    if (typeof word === 'string' && words.includes(word)) continue
    const near = typeof word === 'string' ? suggestName(word, words) : undefined
    throw invalidOption(
      `Expected \`allow\` to be 'read', 'all', or a list of actions such as 'deadLetters.redrive', got ${describe(word)}${near === undefined ? '' : `. Did you mean \`${near}\`?`}`,
      'allow',
    )
  }
  return new Set(list as readonly string[])
}
