import type pg from 'pg'
import { DeliveryError } from '../../foundation/errors.ts'
import type { FaultHook } from '../../foundation/fault-points.ts'
import { messageOf } from '../../foundation/error-redaction.ts'
import { toBusError } from '../../database/database-errors.ts'
import type { BusClient } from '../../database/bus-client.ts'
import type { DrizzleHandles, HandlerTransaction } from '../../database/drizzle-handle.ts'
import { beginOn, beginWriting, busPathSql, handlerPathSql } from '../../database/session-settings.ts'

const savepoint = 'bossbus_event'

/** How long the server waits for a process that stopped between its receipts and its commit. */
const settlingIdleLimit = '5s'

/** What the statements of one handler go through: closed when the handler is done. */
export interface TransactionHandle {
  readonly tx: HandlerTransaction
  /** Whether a statement was sent. */
  readonly used: boolean
  /** What the first statement that failed said. */
  readonly firstError: string | undefined
  /** Whether a statement lost against a concurrent transaction: a deadlock, or a serialization failure. */
  readonly lostRace: boolean
  /** Refuses further statements, and resolves when those that were sent are answered. */
  close: () => Promise<void>
}

/** An open transaction in which handlers run, one after the other, each behind a savepoint. */
export interface EventTransaction {
  /** What the server shows as its application name. */
  readonly name: string
  /** For what the bus itself writes. */
  readonly client: pg.ClientBase
  openHandle: () => Promise<TransactionHandle>
  /**
   * Keeps what the last handler wrote, and prepares for the next one, or for settling.
   * @throws {@link DeliveryError} `BUS_HANDLER_TRANSACTION_ABORTED`: it can only be undone; `…_ENDED`: the transaction is gone
   */
  releaseSavepoint: (next: 'handler' | 'settling') => Promise<void>
  /** Takes back what the last handler wrote. @throws {@link DeliveryError} `BUS_HANDLER_TRANSACTION_ENDED` */
  rollbackToSavepoint: (next: 'handler' | 'settling') => Promise<void>
  /** Makes sure that what comes next are statements of the bus, as the two above do. */
  beginSettling: () => Promise<void>
  /** After `beginSettling`. */
  commit: () => Promise<void>
  /** Releases the connection, whatever state the transaction is in. */
  rollback: () => Promise<void>
  /** Throws the connection away, with a statement that may be running on it. */
  destroy: () => void
}

/**
 * Begins a transaction for handlers. The server ends it by itself when nothing was heard of it for `idleLimitSeconds`:
 * a process that is stopped, or behind a dead network, does not hold its locks for good.
 */
export async function beginEventTransaction(
  pool: pg.Pool,
  name: string,
  idleLimitSeconds: number,
  drizzle: DrizzleHandles,
  faultPoint: FaultHook | undefined,
): Promise<EventTransaction> {
  let released = false
  let isSettling = false
  const client = await pool.connect().catch(rethrow)
  const release = (destroy: boolean): void => {
    if (released) return
    released = true
    client.release(destroy)
  }
  try {
    const begin = beginOn(client as unknown as BusClient, beginWriting)
    await client.query(
      `${begin}; set local application_name = ${client.escapeLiteral(name)};
       set local idle_in_transaction_session_timeout = '${idleLimitSeconds}s'; savepoint ${savepoint}`,
    )
    await faultPoint?.('exactly-once.begun')
  } catch (error) {
    release(true)
    throw toBusError(error)
  }

  const prepareFor = (next: 'handler' | 'settling'): string =>
    next === 'handler'
      ? `savepoint ${savepoint}`
      : `set local idle_in_transaction_session_timeout = '${settlingIdleLimit}'; ${busPathSql}`

  return {
    name,
    client,
    openHandle: async () => openHandle(client, drizzle),
    async releaseSavepoint(next) {
      isSettling = next === 'settling'
      await client.query(`release savepoint ${savepoint}; ${prepareFor(next)}`).catch(rethrowEnd)
    },
    async rollbackToSavepoint(next) {
      // Rolling back to a savepoint leaves it in place.
      isSettling = next === 'settling'
      const more = isSettling ? `; ${prepareFor(next)}` : ''
      await client.query(`rollback to savepoint ${savepoint}${more}`).catch(rethrowEnd)
    },
    async beginSettling() {
      if (!isSettling) await client.query(prepareFor('settling')).catch(rethrowEnd)
      isSettling = true
    },
    async commit() {
      const answers = await client.query(`${handlerPathSql}; commit`).catch(rethrow)
      const { command } = (answers as unknown as readonly pg.QueryResult[]).at(-1) ?? {}
      // What COMMIT answers in a transaction that failed before.
      if (command !== 'COMMIT') throw abortedTransaction('a statement failed before the commit')
      release(false)
    },
    async rollback() {
      // Whatever became of it, the connection is not used again in an unknown state.
      if (released) return
      const rolledBack = await client.query('rollback').then(
        () => true,
        () => false,
      )
      release(!rolledBack)
    },
    destroy: () => release(true),
  }
}

function rethrow(error: unknown): never {
  throw toBusError(error)
}

/** Says what the state of the transaction means: the savepoint tells whether it is the one the bus began. */
function rethrowEnd(error: unknown): never {
  const { code, message } = error as { code?: string; message?: string }
  if (code === '25P02') throw abortedTransaction(message ?? '')
  // No such savepoint, or no transaction at all.
  if (code === '3B001' || code === '25P01') throw ended('A handler ended its transaction by hand')
  throw toBusError(error)
}

/** A handler that caught the error of a statement and returned: nothing more can be written. */
export function abortedTransaction(reason: string): DeliveryError {
  return new DeliveryError(
    'BUS_HANDLER_TRANSACTION_ABORTED',
    `A statement of ctx.tx failed, and the handler continued as if it had not: ${reason}`,
  )
}

function ended(what: string): DeliveryError {
  return new DeliveryError('BUS_HANDLER_TRANSACTION_ENDED', what)
}

/**
 * A Drizzle transaction on a client that stays the bus's: its statements go one after the other, also when they are
 * asked for at once, and none that would end the transaction.
 */
async function openHandle(client: pg.ClientBase, drizzle: DrizzleHandles): Promise<TransactionHandle> {
  let closed = false
  let used = false
  let lostRace = false
  let firstError: string | undefined
  let last: Promise<unknown> = Promise.resolve()

  function note(error: unknown): void {
    const { code, message } = error as { code?: unknown; message?: string }
    if (message !== undefined) firstError ??= messageOf(error)
    if (isLostRace(code)) lostRace = true
  }

  async function query(config: string | { readonly text: string }, values?: unknown[]): Promise<unknown> {
    const text = typeof config === 'string' ? config : config.text
    if (closed)
      throw ended('A statement came through ctx.tx after its handler was done: await every statement')
    if (endsTransaction(text)) {
      throw ended(
        'Expected the handler to leave the end of ctx.tx to the bus: return to commit, throw to roll back',
      )
    }
    used = true
    const answer = last.then(async () => client.query(config as string, values))
    last = answer.then(
      () => {},
      (error: unknown) => note(error),
    )
    return answer
  }

  return {
    tx: await drizzle.open(query),
    get used() {
      return used
    },
    get firstError() {
      return firstError
    },
    get lostRace() {
      return lostRace
    },
    async close() {
      closed = true
      await last
    },
  }
}

/** `serialization_failure`, `deadlock_detected`: the transaction may go through when it is run again. */
export function isLostRace(code: unknown): boolean {
  return code === '40001' || code === '40P01'
}

/** Whether a statement begins like one that ends a transaction. What hides behind another one is found at its savepoint. */
export function endsTransaction(text: string): boolean {
  const start = text.replace(/^(?:\s|;|--[^\n]*(?:\n|$)|\/\*[^]*?\*\/)+/, '')
  return /^(?:commit|end|abort|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b)|prepare\s+transaction)\b/i.test(
    start,
  )
}
