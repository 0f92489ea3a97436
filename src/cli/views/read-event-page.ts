import type { Bus } from '../../bus-interface.ts'
import type { EventPage } from './event-page.ts'

/** So many of the events that it has caused are shown. */
const maxEffects = 20

/** All that is shown of an event. Undefined if it is not in the log. */
export async function readEventPage(bus: Bus, id: string): Promise<EventPage | undefined> {
  const event = await bus.events.get(id)
  if (event === undefined) return undefined
  const [explanation, deliveries, cause, effects] = await Promise.all([
    bus.explain(id),
    bus.deliveries(id),
    event.causationId === undefined ? undefined : bus.events.get(event.causationId),
    bus.events.find({ causationId: id, order: 'oldest', limit: maxEffects }),
  ])
  return { event, explanation, deliveries, cause, effects }
}
