import type { Database } from './database/database.ts'
import type { Delivery } from './delivery/delivery.ts'
import { reasonOf } from './foundation/error-reason.ts'
import { assertObject, booleanOption, refuseUnknownKeys } from './foundation/options.ts'
import { withAnswerLimit } from './foundation/with-timeout.ts'
import { findBlockedKeys } from './health/blocked-keys.ts'
import type { CanaryResult } from './health/canary-result.ts'
import {
  findBehind,
  findCanaryProblem,
  findNewDeadLetters,
  findPartitionProblems,
  findRelayBehind,
  subscriptionsOf,
  type SubscriptionHealth,
} from './health/delivery-health.ts'
import { createFinding, type Finding } from './health/finding.ts'
import { createLagReader } from './health/lags.ts'
import { readOutbox, type OutboxState } from './health/outbox-state.ts'
import { findQuarantined } from './health/quarantine-health.ts'
import {
  findProcessProblems,
  hangingLoops,
  measureClock,
  type ProcessState,
} from './health/process-health.ts'
import { findRegistryProblems, readRegistryAndIdle, unservedOf } from './health/registry-health.ts'
import { findServerProblems } from './health/server-health.ts'
import { countMigrations } from './migrations/migrate.ts'
import { readPartitions, type DefaultPartition } from './outbox/schema/partitions.ts'
import type { RelayState } from './outbox/relay/relay.ts'

export type BusState = 'created' | 'starting' | 'started' | 'stopping' | 'stopped'

/** The state of the bus, for probes and for people. */
export interface BusHealth {
  /** The same as `ready`. */
  readonly ok: boolean
  /** Whether the loops of this process make progress. For a liveness probe: a restart helps if it is false. */
  readonly live: boolean
  /** True if the bus has started, the database answers, and the relay is not failing. For a readiness probe. */
  readonly ready: boolean
  readonly state: BusState
  readonly database: 'up' | 'down'
  readonly relay: RelayState
  /**
   * Whether notifications arrive. False behind a pooler in transaction mode, where the bus polls, and while a lost
   * connection is being replaced. Events are then delivered up to a second later.
   */
  readonly listening: boolean
  /**
   * Handlers of this process that are still running although their attempt timed out or was taken over. Each occupies
   * one of the `concurrency` of its subscription until it ends. If this number stays above 0, handlers ignore
   * `ctx.signal`.
   */
  readonly overrunningHandlerCount: number
  /** `tryPublish` calls of this process that failed to publish. */
  readonly failedTryPublishCount: number
  /**
   * The part of the log that is in the default partition because its month began without a partition, and the remedy.
   * Undefined if the default partition is empty, as it should be, and if the database does not answer or the role may
   * not read it.
   */
  readonly defaultPartition: DefaultPartition | undefined
  /**
   * Subscriptions, of all services, that no process runs: their service is down, or they were renamed or removed and
   * their events accumulate. Empty if the database does not answer or the role may not read them.
   */
  readonly unservedSubscriptions: readonly string[]
  /**
   * Everything that is not as it should be, in this process, in the database and on its server, each with what it means and what mends
   * it. Empty if all is well. docs/guide/health.md explains the codes.
   */
  readonly findings: readonly Finding[]
  /** The last test event of any process that is over. Undefined without the option `canary`. */
  readonly canary: CanaryResult | undefined
  /** The subscriptions of all services, with their lags. Only with `full: true`. */
  readonly subscriptions: readonly SubscriptionHealth[] | undefined
  /** What waits for the relays, counted up to 10,000 events. Only with `full: true`. */
  readonly outbox: OutboxState | undefined
}

/** Options of `bus.health`. */
export interface HealthOptions {
  /**
   * Whether everything is read anew, and `subscriptions` and `outbox` are answered. Otherwise what takes longer is up to five seconds
   * old, and lags are read for fifty subscriptions at a time. Not for probes.
   * @defaultValue `false`
   */
  readonly full?: boolean | undefined
}

/** What a bus knows about itself. */
interface OwnState {
  readonly state: BusState
  readonly delivery: Delivery | undefined
  readonly failedTryPublishCount: number
}

/** The limits of the option `health`. */
export interface HealthLimits {
  readonly loopLimitSeconds: number
  readonly transactionLimitSeconds: number
}

interface HealthParts {
  readonly database: Database
  readonly limits: HealthLimits
  readonly readCanary: () => Promise<CanaryResult | undefined>
  readonly own: () => OwnState
}

/** How long what takes longer is kept. */
const cachedMs = 5000

/** Sections that have not begun after this are left out. */
const totalMs = 4000

const maxCounted = 10_000

/** Reads the health: sections one after the other, each failing by itself. */
export function createHealth({ database, limits, readCanary, own }: HealthParts): {
  readonly health: (options?: HealthOptions) => Promise<BusHealth>
  readonly isLive: () => boolean
} {
  const lags = createLagReader(database, cachedMs)
  const registryState = cached(async () => readRegistryAndIdle(database))
  const partitionState = cached(async () => readPartitions(database))
  const server = cached(async () => findServerProblems(database, limits.transactionLimitSeconds))
  const blockedKeys = cached(async () => findBlockedKeys(database))
  const deadLetters = cached(async () => findNewDeadLetters(database))
  const quarantined = cached(async () => findQuarantined(database))
  const outboxState = cached(async () => readOutbox(database, 0))

  function readProcess(): ProcessState {
    const { state, delivery } = own()
    return {
      isStarted: state === 'started',
      state,
      relay: delivery?.relayState ?? 'stopped',
      isDelivering: delivery !== undefined,
      isListening: delivery?.isListening ?? false,
      overrunningHandlerCount: delivery?.overrunningHandlerCount ?? 0,
      loops: state === 'stopped' ? [] : (delivery?.loops ?? []),
      loopLimitSeconds: limits.loopLimitSeconds,
    }
  }

  async function health(options: HealthOptions = {}): Promise<BusHealth> {
    assertObject('options like { full }', options)
    refuseUnknownKeys(options, ['full'], 'health')
    const full = booleanOption('full', options.full, false)
    const { state, failedTryPublishCount } = own()
    const processState = readProcess()
    const { relay } = processState
    const hanging = hangingLoops(processState)
    const findings: Finding[] = [...findProcessProblems(processState, hanging)]
    const clock = await withAnswerLimit(measureClock(database)).then(
      (finding) => ({ finding }),
      () => undefined,
    )
    const sections = createSections(clock !== undefined)
    if (clock === undefined) findings.push(createFinding('database-down', 'The database does not answer'))
    else if (clock.finding !== undefined) findings.push(clock.finding)
    const partitions = await sections.read('partitions', async () => partitionState(full))
    const registry = await sections.read('registry', async () => registryState(full))
    const known = await sections.read('lags', async () => lags.read(registry?.subscriptions ?? [], full))
    const shipped = await countMigrations()
    const outbox = await sections.read('outbox', async () =>
      full ? readOutbox(database, maxCounted) : outboxState(false),
    )
    const blocked = await sections.read('blocked keys', async () => blockedKeys(full))
    const newDead = await sections.read('dead letters', async () => deadLetters(full))
    const newQuarantined = await sections.read('quarantine', async () => quarantined(full))
    const ofServer = await sections.read('server', async () => server(full))
    const canary = await sections.read('canary', readCanary)
    const subscriptions = registry === undefined ? [] : subscriptionsOf(registry, known ?? new Map())
    const ready = clock !== undefined && state === 'started' && relay !== 'failing'
    return {
      ok: ready,
      live: hanging.length === 0,
      ready,
      state,
      database: clock === undefined ? 'down' : 'up',
      relay,
      listening: processState.isListening,
      overrunningHandlerCount: processState.overrunningHandlerCount,
      failedTryPublishCount,
      defaultPartition: partitions?.defaultPartition,
      unservedSubscriptions: registry === undefined ? [] : unservedOf(registry),
      findings: [
        ...findings,
        ...findRelayBehind(outbox?.lagSeconds ?? 0),
        ...findBehind(subscriptions),
        ...(registry === undefined ? [] : findRegistryProblems(registry, shipped)),
        ...(blocked ?? []),
        ...(newDead ?? []),
        ...(newQuarantined ?? []),
        ...findPartitionProblems(partitions?.missing ?? [], partitions?.defaultPartition),
        ...(ofServer ?? []),
        ...findCanaryProblem(canary),
        ...sections.failed(),
      ],
      canary,
      subscriptions: full ? subscriptions : undefined,
      outbox: full ? outbox : undefined,
    }
  }

  return { health, isLive: () => hangingLoops(readProcess()).length === 0 }
}

interface Sections {
  /** What a section answers; undefined if it fails, or if there is no time or no database. */
  read: <T>(name: string, section: () => Promise<T>) => Promise<T | undefined>
  /** The sections that have failed, as one finding. */
  failed: () => readonly Finding[]
}

function createSections(isUp: boolean): Sections {
  const deadline = performance.now() + totalMs
  const failures: { readonly section: string; readonly reason: string }[] = []
  return {
    async read(name, section) {
      if (!isUp) return undefined
      try {
        if (performance.now() > deadline) throw new Error('the checks before it took too long')
        return await withAnswerLimit(section())
      } catch (error) {
        failures.push({ section: name, reason: reasonOf(error) })
        return undefined
      }
    },
    failed: () =>
      failures.length === 0
        ? []
        : [
            createFinding(
              'check-failed',
              `Not everything could be checked: ${failures.map(({ section }) => section).join(', ')}`,
              {
                failures,
              },
            ),
          ],
  }
}

/** Calls a read at most once in five seconds, unless it is to be fresh. A failure is not kept. */
function cached<T>(read: () => Promise<T>): (fresh: boolean) => Promise<T> {
  let value: Promise<T> | undefined
  let readAt = Number.NEGATIVE_INFINITY
  return async (fresh) => {
    if (value === undefined || fresh || performance.now() - readAt > cachedMs) {
      readAt = performance.now()
      const reading = read()
      value = reading
      reading.catch(() => {
        if (value === reading) value = undefined
      })
    }
    return value
  }
}
