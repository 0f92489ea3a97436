import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { tellOperation } from '../../telemetry/tell-operation.ts'
import type { Settlement } from './settlement.ts'

/** Writes settlements in a transaction, and tells of it: it has a span, and is measured. */
export async function tellSettled<T>(
  { subscription, telemetry }: Pick<SubscriptionContext, 'subscription' | 'telemetry'>,
  settlements: readonly Pick<Settlement, 'outcomes'>[],
  write: () => Promise<T>,
): Promise<T> {
  const { spans, recorder } = telemetry
  if (!spans.isOn && !recorder.isOn) return write()
  const outcomes = settlements.flatMap((settlement) => settlement.outcomes)
  // Only jobs: nothing became of an event.
  if (outcomes.length === 0) return write()
  const span = spans.isOn
    ? spans.settle(
        subscription.name,
        outcomes.map(({ trace }) => trace),
      )
    : undefined
  return tellOperation(recorder, { operation: 'settle', subscription: subscription.name }, span, write)
}
