import type { Database } from '../database/database.ts'
import { isPausedSql } from '../delivery/flow-control/subscription-state.ts'
import { liveSeconds } from '../delivery/registry/declarations.ts'
import { OverloadError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import type { BusLogger } from '../foundation/logger.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { createLagReader } from './lags.ts'
import { readOutbox } from './outbox-state.ts'

/** When publishing is refused or slowed down. At least one of the two limits. */
export interface AdmissionOption {
  /** Events that may be dispatched and are not, 1 to 1,000,000. Scheduled events count when they are due. */
  readonly maxOutboxDepth?: number | undefined
  /**
   * For how long an event may wait, in whole seconds: in the outbox, or in the queue of a subscription that a process runs and that is
   * neither paused nor halted by its circuit breaker.
   */
  readonly maxLagSeconds?: number | undefined
  /**
   * `'refuse'`: publish fails with `BUS_OVERLOADED`. `'delay'`: publish waits until the limits are kept again, up to `maxDelayMs`, and then
   * publishes.
   * @defaultValue `'refuse'`
   */
  readonly action?: 'refuse' | 'delay' | undefined
  /** 1 to 60,000 milliseconds. @defaultValue `1000` */
  readonly maxDelayMs?: number | undefined
}

/** Whether events may be published now. */
export interface Admission {
  /**
   * Resolves if events may be published. It asks the database nothing: it decides by a sample that is taken about once a second while
   * events are published.
   *
   * @param isInTransaction - the caller holds a transaction open, which waits briefly only
   * @throws an {@link OverloadError} `BUS_OVERLOADED`
   */
  admit: (isInTransaction: boolean) => Promise<void>
}

interface Resolved {
  readonly maxOutboxDepth: number | undefined
  readonly maxLagSeconds: number | undefined
  readonly action: 'refuse' | 'delay'
  readonly maxDelayMs: number
}

interface Sample {
  readonly depth: number
  readonly lagSeconds: number
  /** The subscription with that lag; undefined for the outbox. */
  readonly behind: string | undefined
  readonly at: number
}

const intervalMs = 1000

/** Sampling takes at most this share of the time. */
const maxShare = 1 / 20

/** A sample that is older says nothing: events are admitted. */
const maxAgeMs = 10_000

/** A transaction that is open does not wait longer, because of its locks. */
const maxDelayInTransactionMs = 100
const pauseMs = 20

/** @throws a ConfigurationError `BUS_INVALID_OPTION` */
export function createAdmission(
  database: Database,
  option: AdmissionOption | undefined,
  logger: BusLogger,
): Admission {
  if (option === undefined) return { async admit() {} }
  const { maxOutboxDepth, maxLagSeconds, action, maxDelayMs } = resolveOption(option)
  const lags = createLagReader(database, intervalMs)
  let sample: Sample | undefined
  let sampling: Promise<void> | undefined
  let nextAt = Number.NEGATIVE_INFINITY
  let wasOverloaded = false

  async function take(): Promise<void> {
    const startedAt = performance.now()
    try {
      // One more than allowed shows that there are too many.
      const outbox = await readOutbox(database, maxOutboxDepth === undefined ? 0 : maxOutboxDepth + 1)
      const worst = maxLagSeconds === undefined ? undefined : await readWorstLag()
      const isOutboxWorse = worst === undefined || outbox.lagSeconds >= worst.lagSeconds
      sample = {
        depth: outbox.depth,
        lagSeconds: isOutboxWorse ? outbox.lagSeconds : worst.lagSeconds,
        behind: isOutboxWorse ? undefined : worst.name,
        at: performance.now(),
      }
      const reason = overloadOf(sample)
      if (reason !== undefined && !wasOverloaded)
        logger.warn({ reason, action }, 'more events wait than `admission` allows')
      wasOverloaded = reason !== undefined
    } catch (error) {
      sample = undefined
      logger.warn({ reason: reasonOf(error) }, 'the load could not be measured: every event is admitted')
    }
    const tookMs = performance.now() - startedAt
    nextAt = startedAt + Math.max(intervalMs, tookMs / maxShare)
  }

  async function readWorstLag(): Promise<{ readonly name: string; readonly lagSeconds: number } | undefined> {
    const { rows } = await database.query<{ id: number; name: string }>(
      `select s.id, s.name from bus.subscriptions s
       where not ${isPausedSql} and s.circuit_opened_at is null and s.id in (
         select d.subscription_id
         from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
         where i.seen_at > clock_timestamp() - interval '${liveSeconds} seconds')`,
    )
    const known = await lags.read(rows, false)
    let worst: { name: string; lagSeconds: number } | undefined
    for (const { id, name } of rows) {
      const lagSeconds = known.get(id)?.lagSeconds ?? 0
      if (worst === undefined || lagSeconds > worst.lagSeconds) worst = { name, lagSeconds }
    }
    return worst
  }

  function overloadOf({ depth, lagSeconds, behind }: Sample): string | undefined {
    if (maxOutboxDepth !== undefined && depth > maxOutboxDepth)
      return `more than ${maxOutboxDepth} events wait in the outbox`
    if (maxLagSeconds !== undefined && lagSeconds > maxLagSeconds)
      return `${behind === undefined ? 'the relay' : `the subscription \`${behind}\``} is ${Math.round(lagSeconds)} s behind, more than ${maxLagSeconds} s`
    return undefined
  }

  /** Never waits for a sample: publishing does not depend on it. */
  function currentOverload(): string | undefined {
    const now = performance.now()
    if (sampling === undefined && now >= nextAt)
      sampling = take().finally(() => {
        sampling = undefined
      })
    return sample === undefined || now - sample.at > maxAgeMs ? undefined : overloadOf(sample)
  }

  return {
    async admit(isInTransaction) {
      const reason = currentOverload()
      if (reason === undefined) return
      if (action === 'refuse')
        throw new OverloadError(`Expected fewer events to wait: ${reason}. Publish again later`)
      const deadline =
        performance.now() + Math.min(maxDelayMs, isInTransaction ? maxDelayInTransactionMs : maxDelayMs)
      while (performance.now() < deadline && currentOverload() !== undefined)
        await new Promise((resolve) => setTimeout(resolve, pauseMs))
    },
  }
}

function resolveOption(option: AdmissionOption): Resolved {
  assertObject('`admission` to be like { maxOutboxDepth, maxLagSeconds, action }', option)
  refuseUnknownKeys(option, ['maxOutboxDepth', 'maxLagSeconds', 'action', 'maxDelayMs'], '`admission`')
  const { action = 'refuse' } = option
  if (action !== 'refuse' && action !== 'delay')
    throw invalidOption(
      `Expected \`admission.action\` to be 'refuse' or 'delay', got ${describe(action)}`,
      'admission.action',
    )
  const limit = (name: 'maxOutboxDepth' | 'maxLagSeconds'): number | undefined =>
    option[name] === undefined
      ? undefined
      : integerOption(`admission.${name}`, option[name], limits[`admission.${name}`])
  const [maxOutboxDepth, maxLagSeconds] = [limit('maxOutboxDepth'), limit('maxLagSeconds')]
  if (maxOutboxDepth === undefined && maxLagSeconds === undefined)
    throw invalidOption('Expected `admission` to have `maxOutboxDepth`, `maxLagSeconds` or both', 'admission')
  if (option.maxDelayMs !== undefined && action !== 'delay')
    throw invalidOption(
      "Expected `admission.maxDelayMs` only together with `action: 'delay'`",
      'admission.maxDelayMs',
    )
  const maxDelayMs = integerOption('admission.maxDelayMs', option.maxDelayMs, limits['admission.maxDelayMs'])
  return { maxOutboxDepth, maxLagSeconds, action, maxDelayMs }
}
