import { checkActor } from '../../audit/audit.ts'
import type { Database } from '../../database/database.ts'
import { isDate } from '../../foundation/cross-realm.ts'
import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  assertTextOption,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { setOverrides, type OptionOverrides, type OverrideChange } from '../flow-control/overrides.ts'
import { pauseSubscription, resumeSubscription, type PauseChange } from '../flow-control/pause.ts'
import { missingSubscription } from '../registry/find-subscription.ts'
import { resolveRetry } from '../subscriptions/retry-options.ts'
import type { RetryOptions } from '../subscriptions/subscription-options.ts'
import { readSubscriptions, type SubscriptionInfo } from './subscription-info.ts'

/** Lists the subscriptions of all services, and changes them while they run. */
export interface SubscriptionControls {
  /** All subscriptions of the database, by name. Waiting events are counted for up to 2,500 jobs of each. */
  list: () => Promise<SubscriptionInfo[]>
  /** One subscription. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION` */
  get: (name: string) => Promise<SubscriptionInfo>
  /**
   * Pauses a subscription in every process: in this one before the call resolves; in others immediately if
   * notifications arrive, otherwise within 5 seconds. Running handlers finish; events that were not started are
   * requeued without counting an attempt. Events are kept. It stays paused until it is resumed, even across restarts.
   * Works from any process, started or not. Resolves to `true` if this call paused it, and to `false`, changing
   * nothing, if it was already paused.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  pause: (name: string, options?: PauseOptions) => Promise<boolean>
  /**
   * Resumes a subscription that is paused, also by `setOptions`, or whose circuit breaker is open. Resolves to `true` if it was
   * either.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  resume: (name: string, options?: PauseOptions) => Promise<boolean>
  /**
   * Sets options in place of those of the code, in every process, until a time; then those of the code count again. They replace what
   * was set before: `{}` ends it. Workers follow as for `pause`; running handlers finish. `retry` counts for events whose first
   * attempt is yet to be planned; the others keep the number of attempts that they have.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  setOptions: (name: string, options: ChangeableOptions, change: OptionsChange) => Promise<void>
}

export interface PauseOptions {
  /** The person or system that does it, up to 255 characters. Shown by `list` and recorded. @defaultValue the service of the bus */
  readonly by?: string | undefined
  /** The reason, up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** Options of a subscription that an operator can set at run time. */
export interface ChangeableOptions {
  /** Handlers at a time in each process, 1 to 1,000. */
  readonly concurrency?: number | undefined
  /** All of `retry`: what it does not say has its default, and not the value of the code. */
  readonly retry?: RetryOptions | undefined
  /** `true`: no event is started until then. */
  readonly paused?: true | undefined
}

/** Who sets options, why, and until when: one of `expiresAt` and `expiresInSeconds`, unless nothing is set. */
export interface OptionsChange {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /** At most 30 days ahead. */
  readonly expiresAt?: Date | undefined
  /** 1 to 2,592,000, by the clock of the database. */
  readonly expiresInSeconds?: number | undefined
}

/**
 * @param service - recorded where no person is named
 * @param onChange - applies the change to the workers of this process; awaited before a call resolves
 */
export function createSubscriptions(
  database: Database,
  service: string,
  onChange: () => Promise<void>,
): SubscriptionControls {
  async function change(
    step: 'pause' | 'resume',
    name: string,
    options: PauseOptions | undefined,
  ): Promise<boolean> {
    const checked = checkPause(options, `subscriptions.${step}`, service)
    checkName(name)
    const apply = step === 'pause' ? pauseSubscription : resumeSubscription
    const hasChanged = await database.transaction(async (client) => apply(client, name, checked))
    if (hasChanged === undefined) throw await missingSubscription(database, name)
    await onChange()
    return hasChanged
  }

  return {
    list: async () => readSubscriptions(database),
    async get(name) {
      const [found] = await readSubscriptions(database, checkName(name))
      if (found === undefined) throw await missingSubscription(database, name)
      return found
    },
    pause: async (name, options) => change('pause', name, options),
    resume: async (name, options) => change('resume', name, options),
    async setOptions(name, options, given) {
      checkName(name)
      const overrides = checkOverrides(name, options)
      const how = checkOptionsChange(given, Object.keys(overrides).length > 0)
      const isFound = await database.transaction(async (client) => setOverrides(client, name, overrides, how))
      if (!isFound) throw await missingSubscription(database, name)
      await onChange()
    },
  }
}

function checkPause(options: PauseOptions | undefined = {}, call: string, service: string): PauseChange {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected options like { by, reason }, got ${describe(options)}`)
  refuseUnknownKeys(options, ['by', 'reason'], call)
  const { by } = options
  const actor = checkActor({ by: by === undefined ? service : by, reason: options.reason })
  return { ...actor, by, service }
}

function checkOverrides(name: string, options: ChangeableOptions): OptionOverrides {
  assertObject('options like { concurrency, retry, paused }', options)
  refuseUnknownKeys(options, ['concurrency', 'retry', 'paused'], 'subscriptions.setOptions')
  const { concurrency, retry } = options
  // Callers without types may pass anything.
  const paused: unknown = options.paused
  if (paused !== undefined && paused !== true)
    throw invalidOption(
      `Expected \`paused\` to be true or left out, got ${describe(paused)}: \`resume\` ends a pause`,
      'paused',
    )
  return {
    ...(concurrency === undefined
      ? {}
      : { concurrency: integerOption('concurrency', concurrency, limits.concurrency) }),
    ...(retry === undefined ? {} : { retry: resolveRetry(`\`retry\` of \`${name}\``, retry) }),
    ...(paused === true ? { paused } : {}),
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
function checkOptionsChange(given: OptionsChange, isSet: boolean): OverrideChange {
  assertObject('who does it and until when, like { by, reason, expiresInSeconds }', given)
  refuseUnknownKeys(given, ['by', 'reason', 'expiresAt', 'expiresInSeconds'], 'subscriptions.setOptions')
  const { expiresAt, expiresInSeconds } = given
  const { by, reason } = checkActor(given)
  if (!isSet) return { by, reason, expiry: undefined }
  if ((expiresAt === undefined) === (expiresInSeconds === undefined))
    throw invalidOption(
      'Expected one of `expiresAt` and `expiresInSeconds`: the options of the code count again then',
    )
  const max = limits.overrideSeconds
  if (expiresInSeconds !== undefined)
    return {
      by,
      reason,
      expiry: integerOption('expiresInSeconds', expiresInSeconds, { min: 1, max, default: 1 }),
    }
  const leftMs = isDate(expiresAt) ? expiresAt.getTime() - Date.now() : Number.NaN
  if (!(leftMs > 0 && leftMs <= max * 1000))
    throw invalidOption(
      `Expected \`expiresAt\` to be a Date within the next ${max} seconds, got ${describe(expiresAt)}`,
      'expiresAt',
    )
  return { by, reason, expiry: expiresAt }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkName(name: unknown, option = 'name'): string {
  assertTextOption(option, name, { max: limits.subscriptionNameLength })
  return name
}
