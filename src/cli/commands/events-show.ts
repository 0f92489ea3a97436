import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { writeEventPage } from '../views/event-page.ts'
import { findEventId } from '../views/find-event-id.ts'
import { readEventPage } from '../views/read-event-page.ts'

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
    const page = id === undefined ? undefined : await readEventPage(open, id)
    if (page === undefined) {
      if (id !== undefined) output.note(`There is no event ${id} in the log.`)
      return 1
    }
    output.object(page, () => writeEventPage(output, page))
    return 0
  },
})
