import { escapeUnprintable } from '../../foundation/text.ts'
import type { EventDelivery } from '../../operations/event-deliveries.ts'
import type { Explanation } from '../../operations/explain.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import { counted, duration, isoTime, relativeTime } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { bold, quiet, state, yellow } from '../output/styled.ts'
import { eventColumns } from './event-columns.ts'
import { timelineOf, untimedAttempts, type Moment } from './event-timeline.ts'

/** All that is shown of an event; as JSON, an object of these. */
export interface EventPage {
  readonly event: HistoryEvent
  readonly explanation: Explanation
  readonly deliveries: readonly EventDelivery[]
  /** The event that caused it, if it names one that is in the log. */
  readonly cause: HistoryEvent | undefined
  /** The first events that it has caused. */
  readonly effects: readonly HistoryEvent[]
}

const maxPayloadLines = 200
const maxLineLength = 2000

/** An event for a person: what it is, where it is, what happened, what belongs to it, what it carries. */
export function writeEventPage(output: Output, page: EventPage): void {
  const { event, explanation, deliveries, cause, effects } = page
  output.line(bold(event.type), '  ', event.id)
  output.line(explanation.sentence)
  writeFacts(output, event)
  if (explanation.subscriptions.length > 0) {
    output.heading('Subscriptions')
    output.table(explanation.subscriptions, [
      { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
      {
        title: 'STATE',
        value: (each) => (each.state === undefined ? quiet('not routed') : state(each.state)),
      },
      { title: 'WHY', value: ({ sentence }) => sentence, isProse: true },
    ])
    for (const { subscription, also } of explanation.subscriptions)
      if (also.length > 0)
        output.line(quiet(`Besides, ${subscription}: ${also.map(({ reason }) => reason).join(', ')}.`))
  }
  writeTimeline(output, event, deliveries)
  if (cause !== undefined || event.causationId !== undefined) {
    output.heading('Caused by')
    if (cause === undefined) output.line(`${event.causationId ?? ''}, which is not in the log`)
    else output.table([cause], eventColumns)
  }
  if (effects.length > 0) {
    output.heading('Has caused')
    output.table(effects, eventColumns)
  }
  writePayload(output, event)
}

function writeFacts(output: Output, event: HistoryEvent): void {
  const facts: readonly (readonly [string, string | undefined])[] = [
    ['published', `${isoTime(event.createdAt)} (${relativeTime(event.createdAt, output.now())})`],
    ['tenant', event.tenantId],
    ['source', event.source],
    ['subject', event.subject],
    ['business id', event.eventId],
    ['idempotency key', event.idempotencyKey],
    ['ordering key', event.orderingKey],
    ['correlation', event.correlationId],
    ['expires', event.expiresAt === undefined ? undefined : isoTime(event.expiresAt)],
    ['version', String(event.schemaVersion)],
  ]
  output.line()
  for (const [name, value] of facts) if (value !== undefined) output.line(quiet(name.padEnd(16)), value)
  for (const [name, value] of Object.entries(event.metadata)) output.line(quiet(name.padEnd(16)), value)
}

function writeTimeline(output: Output, event: HistoryEvent, deliveries: readonly EventDelivery[]): void {
  output.heading('Timeline')
  const began = event.createdAt
  const isSameDay = (at: Date): boolean => isoTime(at).slice(0, 10) === isoTime(began).slice(0, 10)
  output.table<Moment>(timelineOf(event, deliveries), [
    {
      title: 'TIME (UTC)',
      // A program gets whole times.
      value: ({ at }) => (output.isTerminal && isSameDay(at) ? isoTime(at).slice(11, 23) : isoTime(at)),
      isWhole: true,
    },
    {
      title: 'SINCE',
      value: ({ at }) => (at <= began ? '' : `+${duration(at.getTime() - began.getTime())}`),
      align: 'right',
    },
    { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
    { title: 'WHAT', value: ({ what }) => what, isProse: true },
  ])
  for (const delivery of deliveries) {
    const count = untimedAttempts(delivery)
    if (count > 0)
      output.line(quiet(`${delivery.subscription}: ${counted(count, 'attempt')}, times not kept`))
  }
}

function writePayload(output: Output, event: HistoryEvent): void {
  output.heading('Payload')
  if (event.erasedAt !== undefined) {
    output.line(
      yellow(`It was erased at ${isoTime(event.erasedAt)} (${relativeTime(event.erasedAt, output.now())}).`),
    )
    return
  }
  // Still JSON, for whoever copies it.
  const lines = (JSON.stringify(event.payload, undefined, 2) ?? 'null').split('\n').map(escapeUnprintable)
  for (const text of lines.slice(0, maxPayloadLines))
    output.line(text.length > maxLineLength ? `${text.slice(0, maxLineLength)}…` : text)
  if (lines.length > maxPayloadLines)
    output.line(quiet(`${counted(lines.length - maxPayloadLines, 'more line')}: --json shows all`))
}
