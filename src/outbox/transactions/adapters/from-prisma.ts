import { TransactionError } from '../../../foundation/errors.ts'
import { kindOf } from '../../../foundation/options.ts'
import { replyIn, textOf } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/** The argument of the callback of an interactive transaction, `prisma.$transaction(async (tx) => …)`. */
export interface PrismaTransaction {
  $queryRawUnsafe(query: string, ...values: unknown[]): PromiseLike<unknown>
  readonly $connect?: never
}

/**
 * Adapts an interactive Prisma transaction on PostgreSQL. Prisma ends it after its own `timeout`, 5 seconds by default.
 *
 * @example
 * ```ts
 * await prisma.$transaction(async (tx) => {
 *   await tx.payment.create({ data: { id: paymentId, amountCents } })
 *   await bus.publish(fromPrisma(tx), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * })
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for the client itself; from publish for a
 *   transaction that has ended
 */
export function fromPrisma(tx: PrismaTransaction): AdaptedTransaction {
  const { $queryRawUnsafe, $connect } = (tx ?? {}) as Partial<Record<keyof PrismaTransaction, unknown>>
  if (typeof $queryRawUnsafe !== 'function') throw notATransaction('fromPrisma', expected, kindOf(tx))
  if ($connect !== undefined) throw notATransaction('fromPrisma', expected, 'a client outside a transaction')
  return adapt(
    {
      send: async (sent) =>
        replyIn(await tx.$queryRawUnsafe(textOf(sent), ...sent.values).then((rows) => rows, rethrow)),
    },
    tx,
  )
}

const expected = 'the `tx` of prisma.$transaction(async (tx) => …)'

/** Prisma's error for an interactive transaction that has ended, by itself or by its timeout. */
const transactionClosed = 'P2028'

interface PrismaError {
  readonly code?: unknown
  readonly message?: unknown
  readonly meta?: {
    /** Set by the query engine of Prisma before version 7. */
    readonly code?: unknown
    readonly message?: unknown
    readonly driverAdapterError?: { readonly cause?: AdapterError }
  }
}

interface AdapterError {
  readonly kind?: unknown
  readonly originalCode?: unknown
  readonly originalMessage?: unknown
}

/** The names that driver adapters use for a connection that was lost or could not be opened. */
const connectionFailures: readonly unknown[] = [
  'ConnectionClosed',
  'DatabaseNotReachable',
  'SocketTimeout',
  'TlsConnectionError',
  'TooManyConnections',
]

/** Prisma has its own codes: the error of the server or the connection is nested. */
function rethrow(error: unknown): never {
  const { code, meta } = (error ?? {}) as PrismaError
  if (code === transactionClosed)
    throw new TransactionError('Expected the `tx` of an open transaction: Prisma has closed it')
  const inner = meta?.driverAdapterError?.cause
  if (connectionFailures.includes(inner?.kind)) throw new Error('Prisma has lost the connection')
  const sqlState = inner?.originalCode ?? meta?.code
  if (typeof sqlState !== 'string') throw error
  const message = inner?.originalMessage ?? meta?.message
  throw Object.assign(new Error(typeof message === 'string' ? message : 'Prisma reported no reason'), {
    code: sqlState,
  })
}
