import {
  conditionNames,
  storedConditions,
  storedTypes,
  type DeadLetterConditions,
  type StoredFilter,
} from '../../delivery/operator/dead-letter-filter.ts'
import { pickSubscription } from '../../delivery/registry/find-subscription.ts'
import { loadSubscriptions, type RegisteredSubscription } from '../../delivery/registry/registry.ts'
import type { Executor } from '../../database/database.ts'
import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  describe,
  idOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'

/**
 * The dead letters that an act is about: those that satisfy all that is given, of which there is at least one condition. Events that are
 * parked behind a dead letter follow it when it is redriven or discarded; they are not selected by themselves.
 */
export interface DeadLetterSelection extends DeadLetterConditions {
  readonly tenantId?: string | undefined
  /** A type of events, or several. */
  readonly type?: string | readonly string[] | undefined
  /** The ids of events, 1 to 1,000, of the `subscription`, which must be given too. */
  readonly ids?: readonly string[] | undefined
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkSelection(selection: DeadLetterSelection, call: string): StoredFilter {
  assertObject('a selection like { subscription, fingerprint }', selection)
  refuseUnknownKeys(selection, [...conditionNames, 'tenantId', 'type', 'ids'], call)
  if (Object.values(selection).every((value) => value === undefined))
    throw invalidOption(
      `Expected at least one condition in the selection of ${call}: \`from: new Date(0)\` means every dead letter`,
    )
  const stored = { ...storedConditions(selection), ...storedTypes(selection.type) }
  const { ids } = selection
  if (ids === undefined) return stored
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > limits.letterIdCount)
    throw invalidOption(
      `Expected \`ids\` to be a list of 1 to ${limits.letterIdCount} ids of events, got ${Array.isArray(ids) ? ids.length : describe(ids)}`,
      'ids',
    )
  if (selection.subscription === undefined)
    throw invalidOption(
      'Expected `subscription` together with `ids`: an event may be a dead letter of several',
      'subscription',
    )
  return { ...stored, eventIds: ids.map((id: unknown) => idOption('ids', id)) }
}

/**
 * The subscriptions of the database by id.
 * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` if the selection names one that does not exist
 */
export async function subscriptionsOf(
  executor: Executor,
  { subscription }: StoredFilter,
): Promise<ReadonlyMap<number, RegisteredSubscription>> {
  const all = await loadSubscriptions(executor)
  if (subscription !== undefined) await pickSubscription(executor, all, subscription)
  return new Map(all.map((each) => [each.id, each]))
}
