import type { Published, StoredEvent } from '../../events/envelope.ts'
import { describe } from '../../foundation/options.ts'
import { TransactionError } from '../../foundation/errors.ts'
import type { CallerTransaction } from '../../outbox/transactions/caller-transaction.ts'
import type { CancelOptions } from '../../outbox/publish/cancel.ts'
import { createPublisher, type Publisher } from '../../outbox/publish/publisher.ts'
import type { HandlerContext } from '../subscriptions/handler-context.ts'

/** How the bus publishes for a handler: in a transaction, or in a transaction of its own if `tx` is undefined. */
export interface HandlerPublishing {
  readonly publish: (tx: CallerTransaction | undefined, event: never) => Promise<Published>
  readonly publishMany: (tx: CallerTransaction | undefined, events: readonly never[]) => Promise<Published[]>
  readonly tryPublish: (event: never) => Promise<Published | undefined>
  readonly cancel: (tx: CallerTransaction | undefined, id: string, options: CancelOptions) => Promise<boolean>
  readonly tryFailed: (event: unknown, error: unknown) => undefined
}

/** The part of a handler's context that publishes and cancels. */
export type ContextPublisher = Pick<
  HandlerContext,
  'publish' | 'publishMany' | 'tryPublish' | 'with' | 'cancel'
>

/**
 * Publishes events that the handled event has caused. Without a transaction as the first argument it uses `tx`, if the
 * handler has one.
 */
export function createContextPublisher(
  publishing: HandlerPublishing,
  cause: StoredEvent,
  tx: CallerTransaction | undefined,
): ContextPublisher {
  const publisher: Publisher<never> = createPublisher(
    publishing as unknown as Publisher<never>,
    { tenantId: cause.tenantId, correlationId: cause.correlationId ?? cause.id, causationId: cause.id },
    publishing.tryFailed,
  )
  // The transaction may be omitted.
  const withTransaction = (args: readonly unknown[]): [never, never] =>
    (args.length > 1 ? [given(args[0]), args[1]] : [tx, args[0]]) as [never, never]
  const publish = async (...args: readonly unknown[]): Promise<Published> =>
    publisher.publish(...withTransaction(args))
  const publishMany = async (...args: readonly unknown[]): Promise<Published[]> =>
    publisher.publishMany(...withTransaction(args))
  const cancel = async (...args: readonly unknown[]): Promise<boolean> => {
    const [inside, id, options] = typeof args[0] === 'string' ? [tx, ...args] : args
    const { tenantId = cause.tenantId, ...others } = (options ?? {}) as CancelOptions
    return publishing.cancel(inside as CallerTransaction | undefined, id as string, { tenantId, ...others })
  }
  return { publish, publishMany, cancel, tryPublish: publisher.tryPublish, with: publisher.with } as never
}

/** An undefined first argument is a mistake, not an omitted transaction. */
function given(tx: unknown): CallerTransaction {
  if (tx !== undefined) return tx as CallerTransaction
  throw new TransactionError(
    `Expected a transaction before the event, got ${describe(tx)}: leave the argument out to publish without one`,
  )
}
