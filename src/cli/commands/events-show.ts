import type { Bus } from '../../bus-interface.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { writeEventPage } from '../views/event-page.ts'
import { findEventId } from '../views/find-event-id.ts'

/** So many of the events that it has caused are shown. */
const maxEffects = 20

export const eventsShow = defineCommand({
  examples: [
    ['events show 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'by its id'],
    ['events show paid-42', 'by its business id, or anything else that names one event'],
    ['events show paid-42 --json', 'all of it as one object'],
  ],
  args: { id: required('The id of an event, or what `bus.lookup` finds it by') },
  notes: [
    'Payloads are redacted as the catalogue says. Without a configuration that knows the type, the payload is hidden.',
  ],
  async run({ args, bus, output }) {
    const open = await bus()
    const id = await findEventId(open, args.id, output)
    const event = id === undefined ? undefined : await open.events.get(id)
    if (id === undefined || event === undefined) {
      if (id !== undefined) output.note(`There is no event ${id} in the log.`)
      return 1
    }
    const [explanation, deliveries, cause, effects] = await Promise.all([
      open.explain(id),
      open.deliveries(id),
      causeOf(open, event.causationId),
      open.events.find({ causationId: id, order: 'oldest', limit: maxEffects }),
    ])
    const page = { event, explanation, deliveries, cause, effects }
    output.object(page, () => writeEventPage(output, page))
    return 0
  },
})

async function causeOf(bus: Bus, id: string | undefined): ReturnType<Bus['events']['get']> {
  return id === undefined ? undefined : bus.events.get(id)
}
