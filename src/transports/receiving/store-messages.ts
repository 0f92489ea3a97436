import type pg from 'pg'
import { toBusError } from '../../database/database-errors.ts'
import type { Database } from '../../database/database.ts'
import { InvalidEventError, type BusError, type DatabaseError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import { publishOnItsOwn } from '../../outbox/publish/publish.ts'
import type { PassedEvent } from '../../outbox/publish/check-events.ts'
import { sendEvents } from '../../outbox/publish/send-events.ts'
import type { Telemetry } from '../../telemetry/telemetry.ts'
import { poisonOf, type PreparedMessage } from './prepare-message.ts'
import { quarantine, type PoisonMessage } from './quarantine-rows.ts'

/** What storing needs of the bus. */
export interface StoreParts {
  readonly database: Database
  readonly telemetry: Telemetry
  readonly receiver: string
}

/** What was new in the quarantine. */
export interface StoredMessages {
  readonly quarantined: readonly PoisonMessage[]
}

type Sendable = Parameters<typeof publishOnItsOwn>[0]

/**
 * Stores the events of messages, and puts those that are none into the quarantine, in one transaction. If the database refuses the events
 * of one message, all are tried one by one, and that one goes into the quarantine.
 *
 * Locks: those of `bus.store_events`, then rows of the quarantine in the order of message ids. Repeating: the keys of the events make it
 * store nothing twice; messages of the quarantine are counted again.
 */
export async function storeMessages(
  parts: StoreParts,
  prepared: readonly PreparedMessage[],
): Promise<StoredMessages> {
  const { database, receiver } = parts
  const events = prepared.flatMap((each) => (each.poison === undefined ? each.events : []))
  const poisoned = prepared.flatMap((each) => (each.poison === undefined ? [] : [each]))
  const calls = inCalls(events)
  try {
    // One statement is a transaction by itself, in one round trip.
    if (poisoned.length === 0 && calls.length <= 1) {
      for (const call of calls) await send(parts, database, call)
    } else {
      await database.transaction(async (client) => {
        for (const call of calls) await send(parts, client, call)
        await quarantine(client, receiver, poisoned)
        await database.faultPoint?.('receive.written')
      })
    }
  } catch (error) {
    if (!isRefusal(error)) throw error
    return storeOneByOne(parts, prepared)
  }
  await database.faultPoint?.('receive.committed')
  return { quarantined: poisoned }
}

/** After the events of some message were refused. */
async function storeOneByOne(
  parts: StoreParts,
  prepared: readonly PreparedMessage[],
): Promise<StoredMessages> {
  const { database, receiver } = parts
  const poisoned = await database.transaction(async (client) => {
    const found: PoisonMessage[] = []
    for (const each of prepared) {
      if (each.poison !== undefined) {
        found.push(each)
        continue
      }
      const refusal = await storeOne(parts, client, each.events)
      if (refusal !== undefined) found.push({ message: each.message, poison: poisonOf(refusal) })
    }
    await quarantine(client, receiver, found)
    await database.faultPoint?.('receive.written')
    return found
  })
  await database.faultPoint?.('receive.committed')
  return { quarantined: poisoned }
}

/** Stores the events of one message, and leaves the transaction usable if they are refused. Resolves to the refusal. */
async function storeOne(
  parts: StoreParts,
  client: pg.PoolClient,
  events: readonly PassedEvent[],
): Promise<BusError | undefined> {
  await client.query('savepoint message')
  try {
    for (const call of inCalls(events)) await send(parts, client, call)
  } catch (error) {
    if (!isRefusal(error)) throw error
    await client.query('rollback to savepoint message')
    return toBusError(error)
  }
  await client.query('release savepoint message')
  return undefined
}

/** Sends the events of one call of `bus.store_events`, and resolves to their ids. */
export async function send(
  { telemetry }: Pick<StoreParts, 'telemetry'>,
  executor: Sendable,
  events: readonly PassedEvent[],
): Promise<string[]> {
  const published = await sendEvents(telemetry, events, true, async (columns) =>
    publishOnItsOwn(executor, columns),
  )
  return published.map(({ id }) => id)
}

/** Cuts events into calls that are not too large, in their order. */
export function inCalls(events: readonly PassedEvent[]): PassedEvent[][] {
  const calls: PassedEvent[][] = []
  let current: PassedEvent[] = []
  let bytes = 0
  for (const event of events) {
    const size = event.payload.length * 3 + (event.columns.metadata?.length ?? 0)
    if (current.length === limits.callEventCount || (current.length > 0 && bytes + size > limits.callBytes)) {
      calls.push(current)
      current = []
      bytes = 0
    }
    current.push(event)
    bytes += size
  }
  if (current.length > 0) calls.push(current)
  return calls
}

/** Classes of SQLSTATE that are about the values of an event: data exceptions, constraints, limits of what can be stored. */
const refusals = new Set(['22', '23', '54'])

/** Row security forbids the event: a rule of `bus.source_rules`. */
const forbidden = '42501'

/** Whether the database refuses an event for what it is, and would refuse it again. */
export function isRefusal(error: unknown): boolean {
  const found = toBusError(error)
  if (found instanceof InvalidEventError) return true
  const { sqlState, retryable } = found as Partial<DatabaseError>
  return (
    retryable !== true &&
    sqlState !== undefined &&
    (sqlState === forbidden || refusals.has(sqlState.slice(0, 2)))
  )
}
