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
  const traces = settlements.flatMap(({ outcomes }) => outcomes.map(({ trace }) => trace))
  // Only jobs: nothing became of an event.
  if (traces.length === 0) return write()
  const span = spans.settle(subscription.name, traces)
  return tellOperation(recorder, { operation: 'settle', subscription: subscription.name }, span, write)
}
