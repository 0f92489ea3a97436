import type { Database } from './database/database.ts'
import type { HandlerPublishing } from './delivery/attempts/context-publisher.ts'
import type { Admission } from './health/admission.ts'
import { checkActor, writeAudit } from './audit/audit.ts'
import type { Published } from './events/envelope.ts'
import { reasonOf } from './foundation/error-reason.ts'
import { InvalidEventError } from './foundation/errors.ts'
import type { BusLogger } from './foundation/logger.ts'
import { assertObject, refuseUnknownKeys } from './foundation/options.ts'
import { withAnswerLimit } from './foundation/with-timeout.ts'
import { createCancel } from './outbox/publish/cancel.ts'
import { checkEvents, type PublishSettings, type UncheckedEvent } from './outbox/publish/check-events.ts'
import { publishInTransaction, publishOnItsOwn } from './outbox/publish/publish.ts'
import { createPublisher, type Publisher } from './outbox/publish/publisher.ts'
import { sendEvents, tellRefused } from './outbox/publish/send-events.ts'
import {
  assertTransaction,
  mayLoseCommits,
  type CallerTransaction,
} from './outbox/transactions/caller-transaction.ts'
import type { Telemetry } from './telemetry/telemetry.ts'

/** Logged once, as an error: a commit that was reported as successful may have failed. */
export const lostCommitsError =
  'postgres.js prepares statements behind a pooler in transaction mode: unless the pooler keeps prepared statements, COMMITs can fail ' +
  'and be reported as done. Open the client with prepare: false, or give it a direct database URL (docs/drivers.md)'

/** Who publishes an event by hand, and why. */
export interface PublishChange {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** How a bus publishes and cancels, for callers and for its handlers. */
export interface BusPublishing {
  readonly publisher: Publisher
  readonly cancel: ReturnType<typeof createCancel>
  readonly publishByHand: (event: UncheckedEvent, change: PublishChange) => Promise<Published>
  readonly forHandlers: HandlerPublishing
  /** How often `tryPublish` has failed. */
  readonly failedTryCount: number
}

export function createPublishing(
  database: Database,
  settings: PublishSettings,
  logger: BusLogger,
  defaults: unknown,
  admission: Admission,
  telemetry: Telemetry,
): BusPublishing {
  const cancel = createCancel(database, telemetry)
  let failedTryCount = 0
  let hasWarnedOfPooler = false

  /** Does what may refuse events before they are sent. Then that is told. */
  async function beforeSending<T>(newEvents: readonly UncheckedEvent[], check: () => Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      return await check()
    } catch (thrown) {
      tellRefused(telemetry, settings.catalogue, newEvents, (performance.now() - startedAt) / 1000, thrown)
      throw thrown
    }
  }

  async function publishIn(
    tx: CallerTransaction,
    newEvents: readonly UncheckedEvent[],
    isBatch: boolean,
    admit?: () => Promise<void>,
  ): Promise<Published[]> {
    const events = await beforeSending(newEvents, async () => {
      await admit?.()
      assertTransaction(tx, 'bus.publish(tx, event)')
      return checkEvents(settings, newEvents)
    })
    const published = await sendEvents(telemetry, events, isBatch, async (columns) =>
      publishInTransaction(tx, columns),
    )
    if (!hasWarnedOfPooler && mayLoseCommits(tx)) {
      hasWarnedOfPooler = true
      logger.error({}, lostCommitsError)
    }
    await database.faultPoint?.('publish.written')
    return published
  }

  async function publishAlone(newEvents: readonly UncheckedEvent[], isBatch: boolean): Promise<Published[]> {
    const events = await beforeSending(newEvents, async () => checkEvents(settings, newEvents))
    const published = await sendEvents(telemetry, events, isBatch, async (columns) =>
      publishOnItsOwn(database, columns),
    )
    await database.faultPoint?.('publish.committed')
    return published
  }

  function tryFailed(event: unknown, error: unknown): undefined {
    failedTryCount += 1
    logFailedTryPublish(logger, event, error)
  }

  async function tryPublish(event: UncheckedEvent, admit = async () => {}): Promise<Published | undefined> {
    try {
      await beforeSending([event], admit)
      const publishing = publishAlone([event], false)
      // A publish that is too late is not awaited; the event may still have been written.
      publishing.catch(() => {})
      return theOnly(await withAnswerLimit(publishing))
    } catch (error) {
      return tryFailed(event, error)
    }
  }

  /** For handlers, who may leave the transaction out: then the events are written in one of their own. */
  async function publishFor(
    tx: CallerTransaction | undefined,
    newEvents: readonly UncheckedEvent[],
    isBatch: boolean,
  ): Promise<Published[]> {
    return tx === undefined ? publishAlone(newEvents, isBatch) : publishIn(tx, newEvents, isBatch)
  }

  async function publishAdmitted(
    tx: CallerTransaction,
    newEvents: readonly UncheckedEvent[],
    isBatch: boolean,
  ): Promise<Published[]> {
    return publishIn(tx, newEvents, isBatch, async () => admission.admit(true))
  }

  /** The event and its audit record, in one transaction. A duplicate changes nothing, and is not recorded. */
  async function publishByHand(event: UncheckedEvent, change: PublishChange): Promise<Published> {
    assertObject('who publishes it, like { by, reason }', change)
    refuseUnknownKeys(change, ['by', 'reason'], 'publishByHand')
    const actor = checkActor(change)
    const checked = await beforeSending([event], async () => {
      await admission.admit(false)
      return checkEvents(settings, [event])
    })
    const published = await sendEvents(telemetry, checked, false, async (columns) =>
      database.transaction(async (client) => {
        const stored = await publishOnItsOwn(client, columns)
        const { id, duplicate } = theOnly(stored)
        const { type, tenantId } = event
        const record = { ...actor, action: 'publishByHand', tenantId, eventId: id, change: { type } }
        if (!duplicate) await writeAudit(client, record, {})
        return stored
      }),
    )
    return theOnly(published)
  }

  const publisher: Publisher = createPublisher(
    {
      publish: async (tx, event) => theOnly(await publishAdmitted(tx, [event], false)),
      publishMany: async (tx, newEvents) => publishAdmitted(tx, newEvents, true),
      tryPublish: async (event) => tryPublish(event, async () => admission.admit(false)),
    },
    defaults,
    tryFailed,
  )
  // Fields inherited from the handled event take precedence over the defaults. Handlers work the backlog off, so they are always admitted.
  const forHandlers = createPublisher(
    {
      publish: async (tx, event) => theOnly(await publishFor(tx, [event], false)),
      publishMany: async (tx, newEvents) => publishFor(tx, newEvents, true),
      tryPublish: async (event) => tryPublish(event),
    },
    defaults,
    tryFailed,
  ) as unknown as Omit<HandlerPublishing, 'cancel' | 'tryFailed'>

  return {
    publisher,
    cancel,
    publishByHand,
    forHandlers: {
      ...forHandlers,
      tryFailed,
      cancel: async (tx, id, reference) =>
        tx === undefined ? cancel(id, reference) : cancel(tx, id, reference),
    },
    get failedTryCount() {
      return failedTryCount
    },
  }
}

/** Logs a failed tryPublish. Never throws, whatever the event or the logger do. */
function logFailedTryPublish(logger: BusLogger, event: unknown, error: unknown): void {
  try {
    const { code } = (error ?? {}) as { code?: string }
    logger.error(
      { errorCode: code, reason: reasonOf(error), type: printableType(event) },
      'an event could not be published',
    )
  } catch {
    // The failure is counted anyway.
  }
}

function printableType(event: unknown): string | undefined {
  try {
    const { type } = event as { type?: unknown }
    return typeof type === 'string' ? type.slice(0, 255) : undefined
  } catch {
    return undefined
  }
}

function theOnly(published: readonly Published[]): Published {
  const [first] = published
  if (first === undefined)
    throw new InvalidEventError('BUS_INVALID_BATCH', 'The database did not answer for the event')
  return first
}
