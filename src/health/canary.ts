import type { Database } from '../database/database.ts'
import { locks } from '../database/locks.ts'
import { hasCanaryJob, recordCanaryHandled } from '../delivery/jobs/canary-job.ts'
import { liveSeconds } from '../delivery/registry/declarations.ts'
import { resolveSubscription, type Subscription } from '../delivery/subscriptions/subscription.ts'
import { canary } from '../events/event-type.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { StateError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { assertObject, integerOption, refuseUnknownKeys } from '../foundation/options.ts'
import { readCanary, readLastCanary, toResult, type CanaryResult, type CanaryRow } from './canary-result.ts'

/** The option `canary` of `createBus`: `true` for calls of `bus.canary` only. */
export type CanaryOption = true | { readonly everySeconds?: number | undefined }

/** Options of `bus.canary`. */
export interface CanaryCall {
  /** How long to wait for the receipt, 100 to 600,000 milliseconds. @defaultValue `10000` */
  readonly timeoutMs?: number | undefined
}

/** A test event that goes through outbox, relay, queue, worker and receipt. */
export interface Canary {
  /** The subscription that takes the test events. Undefined if this process does not have the option. */
  readonly subscription: Subscription | undefined
  run: (call?: CanaryCall) => Promise<CanaryResult>
  /** The last result of any process; undefined if there is none, or without the option. */
  readLast: () => Promise<CanaryResult | undefined>
  start: () => void
  stop: () => Promise<void>
}

/** A canary that nobody has taken is over after this time: then it is neither delivered nor in the way. */
const expirySeconds = 600

/** How long the results are kept. */
const retention = '7 days'

const firstRunMs = 2000
const pollMs = 25

/** @throws a ConfigurationError `BUS_INVALID_OPTION` */
export function createCanary(
  database: Database,
  service: string,
  option: CanaryOption | undefined,
  logger: BusLogger,
): Canary {
  const everySeconds = resolveOption(option)
  let running: Promise<CanaryResult> | undefined
  let scheduled: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  /** In one transaction, and once for all processes if it is scheduled. */
  async function publish(isScheduled: boolean): Promise<CanaryRow | undefined> {
    return database.transaction(async (client) => {
      if (isScheduled) {
        const { rows } = await client.query<{ due: boolean }>(
          `select pg_try_advisory_xact_lock(${locks.namespace}, ${locks.canary}) and not exists (
             select from bus.canaries c
             where c.published_at > clock_timestamp() - $1 * interval '1 second'
               or (c.published_at > clock_timestamp() - interval '${expirySeconds} seconds' and c.removed_at is null)) as due`,
          // A little less, because the timers of several processes are not in step.
          [(everySeconds ?? 0) * 0.9],
        )
        if (rows[0]?.due !== true) return undefined
      }
      const { rows } = await client.query<CanaryRow>(
        `with stored as (
           select bus.store_events('{}', array[$1::text], array[$2::text], array[$3::text],
             expires_ats => array[clock_timestamp() + interval '${expirySeconds} seconds'])::uuid as id
         )
         insert into bus.canaries (event_id, service, is_scheduled) select id, $3, $4 from stored returning *`,
        [canary.tenantId, canary.type, service, isScheduled],
      )
      return rows[0]
    })
  }

  async function follow(published: CanaryRow, timeoutMs: number): Promise<CanaryResult> {
    const { event_id: id } = published
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const row = await readCanary(database, id)
      if (row?.received_at != null) {
        await database.query('update bus.canaries set received_at = $2 where event_id = $1', [
          id,
          row.received_at,
        ])
        await removeOver(database)
        return toResult(row)
      }
      // Then nobody knows whether it would have come through.
      if (isStopped) throw new StateError('The bus was stopped before the test event had come through')
      if (performance.now() > deadline) break
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
    const failedStep = await findFailedStep(id)
    const { rows } = await database.query<CanaryRow>(
      'update bus.canaries set failed_step = $2 where event_id = $1 returning *',
      [id, failedStep],
    )
    return toResult(rows[0] ?? published)
  }

  async function findFailedStep(id: string): Promise<'relay' | 'worker' | 'receipt'> {
    const row = await readCanary(database, id)
    if (row?.handled_at != null) return 'receipt'
    return (await hasCanaryJob(database, id)) ? 'worker' : 'relay'
  }

  async function runOnce(timeoutMs: number): Promise<CanaryResult> {
    const { rows } = await database.query<{ served: boolean }>(
      `select exists (
         select from bus.subscriptions s join bus.declarations d on d.subscription_id = s.id join bus.instances i on d.id = any (i.declarations)
         where s.name = $1 and i.seen_at > clock_timestamp() - interval '${liveSeconds} seconds') as served`,
      [canary.subscription],
    )
    if (rows[0]?.served !== true)
      throw new StateError('Expected a running process with the option `canary`: none takes the test event')
    const published = await publish(false)
    if (published === undefined) throw new StateError('The test event was not published')
    return follow(published, timeoutMs)
  }

  async function runScheduled(): Promise<void> {
    try {
      await removeOver(database)
      const published = await publish(true)
      if (published === undefined) return
      const result = await follow(
        published,
        Math.min((everySeconds ?? 0) * 500, limits.canaryTimeoutMs.default),
      )
      if (!result.ok && !isStopped)
        logger.error({ id: result.eventId, failedStep: result.failedStep }, 'the canary did not come through')
    } catch (error) {
      if (!isStopped) logger.warn({ reason: reasonOf(error) }, 'the canary could not be published, retrying')
    }
  }

  function schedule(delayMs: number): void {
    if (isStopped || everySeconds === undefined) return
    timer = setTimeout(() => {
      scheduled = runScheduled().finally(() => schedule(everySeconds * 1000))
    }, delayMs)
    timer.unref()
  }

  return {
    subscription: option === undefined ? undefined : canarySubscription(database),
    async run(call = {}) {
      assertObject('options like { timeoutMs }', call)
      refuseUnknownKeys(call, ['timeoutMs'], 'canary')
      const timeoutMs = integerOption('timeoutMs', call.timeoutMs, limits.canaryTimeoutMs)
      // Calls at the same time share one.
      running ??= runOnce(timeoutMs).finally(() => {
        running = undefined
      })
      return running
    },
    readLast: async () => (option === undefined ? undefined : readLastCanary(database)),
    start: () => schedule(firstRunMs),
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await Promise.allSettled([running, scheduled])
    },
  }
}

function resolveOption(option: unknown): number | undefined {
  if (option === undefined || option === true) return undefined
  assertObject('`canary` to be true or { everySeconds }', option)
  refuseUnknownKeys(option, ['everySeconds'], '`canary`')
  const { everySeconds } = option as { readonly everySeconds?: unknown }
  return integerOption('canary.everySeconds', everySeconds, limits['canary.everySeconds'])
}

/** It takes one event at a time, without a circuit breaker: each result counts by itself. */
function canarySubscription(database: Database): Subscription {
  const catalogue = { [canary.type]: {} } as never
  const resolved = resolveSubscription(
    {
      name: 'canary',
      events: [canary.type],
      batchSize: 1,
      circuitBreaker: false,
      handler: async ({ id }: { readonly id: string }) => recordCanaryHandled(database, id),
    },
    catalogue,
  )
  return Object.freeze({ ...resolved, name: canary.subscription })
}

/** Removes canaries that have a receipt from the log, also those that came too late, and old results. */
async function removeOver(database: Pick<Database, 'query'>): Promise<void> {
  await database.query(
    `select bus.remove_canary(o.event_id)
     from (select c.event_id from bus.canaries c where c.removed_at is null order by c.published_at desc limit 20) o`,
  )
  await database.query(`delete from bus.canaries where published_at < now() - interval '${retention}'`)
}
