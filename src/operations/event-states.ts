import type { Executor } from '../database/database.ts'
import { limits } from '../foundation/limits.ts'
import { describe, idOption, invalidOption } from '../foundation/options.ts'
import type { DeliveryState } from './delivery-status.ts'

/** Where an event is for a subscription. */
export interface EventState {
  /** The id of the event. */
  readonly id: string
  readonly subscription: string
  /** As `bus.deliveries` says it. */
  readonly state: DeliveryState
}

/**
 * Where some events are. Everything is looked up by index, in one statement.
 *
 * @param of - whose SQL functions to call: those of operators, or those of the current tenant
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export async function readEventStates(
  executor: Executor,
  of: 'event' | 'tenant',
  given: unknown,
): Promise<EventState[]> {
  if (!Array.isArray(given) || given.length === 0 || given.length > limits.stateIdCount)
    throw invalidOption(
      `Expected \`ids\` to be a list of 1 to ${limits.stateIdCount} ids of events, got ${Array.isArray(given) ? given.length : describe(given)}`,
      'ids',
    )
  const ids = [...new Set((given as unknown[]).map((id) => idOption('ids', id)))]
  const { rows } = await executor.query<EventState & Record<string, unknown>>(
    `select s.event_id as id, s.subscription, s.state
     from bus.${of === 'event' ? 'event_states' : 'tenant_event_states'}($1::uuid[]) s
     order by s.event_id, s.subscription collate "C"`,
    [ids],
  )
  return rows.map(({ id, subscription, state }) => ({ id, subscription, state }))
}
