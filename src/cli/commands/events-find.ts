import type { HistoryEvent } from '../../operations/history-event.ts'
import type { OperatorFilter } from '../../operations/history-filter.ts'
import { defineCommand } from '../command/command.ts'
import { choice, durationSeconds, eventTypes, json, text, time } from '../command/flags.ts'
import { pageFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { counted, isoTime } from '../output/cells.ts'
import { noteNearTypes } from '../views/near-types.ts'
import { eventColumns } from '../views/event-columns.ts'

const states = [
  ...['waiting', 'delivering', 'retrying', 'delivered', 'expired', 'erased', 'discarded', 'dead'],
] as const

export const eventsFind = defineCommand({
  examples: [
    ["events find --type 'payment.*' --status dead", 'dead letters of a kind'],
    ['events find --tenant nordwind --from 2h', 'of a tenant, of the last two hours'],
    [`events find --payload '{"orderId":"42"}' --json | jq .id`, 'by a part of the payload'],
  ],
  flags: {
    type: eventTypes('Of this type, or matching a pattern like payment.*'),
    tenant: text('<id>', 'Of this tenant'),
    status: choice(states, 'Where it is for a subscription'),
    subscription: text('<name>', 'The subscription that --status is about (any)'),
    from: time('Published then or later'),
    to: time('Published before'),
    payload: json(
      'A part of the payload. Compares events of types that the configuration knows',
      '{"orderId":"42"}',
    ),
    source: text('<name>', 'The service that published it'),
    subject: text('<subject>', 'What it is about'),
    correlation: text('<id>', 'Of this correlation'),
    causation: text('<id>', 'Caused by this event'),
    'event-id': text('<id>', 'The business id that it was published with'),
    'idempotency-key': text('<key>', 'The idempotency key that it was published with'),
    order: choice(['newest', 'oldest'], 'Which come first', 'newest'),
    'search-time': durationSeconds('How long to search on where no index helps', {
      ...{ min: 0, max: 86_400, default: 10 },
    }),
    ...pageFlags,
  },
  isLong: true,
  async run({ flags, bus, config, output, inTime, nextPage }) {
    if (flags.subscription !== undefined && flags.status === undefined)
      throw new UsageError('--subscription says which subscription --status is about: give both')
    const { events } = await inTime(bus())
    const { type, status, subscription } = flags
    const filter: OperatorFilter = {
      type: listOf(type.filter((each) => !each.includes('*'))),
      pattern: listOf(type.filter((each) => each.includes('*'))),
      status: status === undefined || subscription === undefined ? status : { state: status, subscription },
      ...{ tenantId: flags.tenant, payload: flags.payload, from: flags.from, to: flags.to },
      ...{ source: flags.source, subject: flags.subject, order: flags.order },
      ...{ correlationId: flags.correlation, causationId: flags.causation, eventId: flags['event-id'] },
      idempotencyKey: flags['idempotency-key'],
    }
    const deadline = output.now() + flags['search-time'] * 1000
    const found: HistoryEvent[] = []
    let after = flags.after
    let page = await inTime(events.search({ ...filter, after, limit: flags.limit }))
    for (;;) {
      found.push(...page.events)
      after = page.next
      if (after === undefined || found.length >= flags.limit || output.now() > deadline) break
      page = await inTime(events.search({ ...filter, after, limit: flags.limit - found.length }))
    }
    output.list(found, eventColumns, after === undefined ? 'No event is like that.' : 'Nothing found so far.')
    if (found.length === 0) await noteNearTypes({ config, output }, type)
    const { through, unsearchedTypes } = page.searched
    if (unsearchedTypes.length > 0)
      output.note(`Not searched, because their \`redact\` names a part of it: ${unsearchedTypes.join(', ')}.`)
    if (after !== undefined) {
      if (found.length < flags.limit && through !== undefined)
        output.note(
          `${counted(found.length, 'event')} found ${flags.order === 'newest' ? 'back to' : 'up to'} ${isoTime(through)}; the rest is not searched yet.`,
        )
      nextPage(after)
    }
    return 0
  },
})

function listOf(texts: readonly string[]): readonly string[] | undefined {
  return texts.length === 0 ? undefined : texts
}
