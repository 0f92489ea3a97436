import { counted } from '../../foundation/counted.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import { duration, isoTime } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { bold, green, quiet, red, state, yellow } from '../output/styled.ts'
import type { ForwardAttempt } from './forward.ts'
import type { Outcome } from './follow-deliveries.ts'

/** So much of an id tells events of a few seconds apart. */
const shortIdLength = 8
const short = (id: string): string => `…${id.slice(-shortIdLength)}`

/** With `--json` a line of JSON with all its fields; on a terminal a line for a person; elsewhere cells between tabs. */
export function writeEvent(output: Output, event: HistoryEvent): void {
  if (output.isJson) output.event(event)
  else if (output.isTerminal)
    output.line(
      ...[quiet(isoTime(event.createdAt).slice(11, 23)), '  ', bold(event.type), '  ', event.tenantId, '  '],
      ...[event.id, event.subject === undefined ? '' : `  ${event.subject}`],
    )
  else
    output.table(
      [event],
      [
        { title: '', value: ({ createdAt }) => createdAt },
        { title: '', value: ({ type }) => type },
        { title: '', value: ({ tenantId }) => tenantId },
        { title: '', value: ({ id }) => id },
        { title: '', value: ({ subject }) => subject },
      ],
    )
}

/** As JSON `{ eventId, delivery }`. */
export function writeOutcome(output: Output, { eventId, delivery, sentence }: Outcome): void {
  if (output.isJson) output.event({ eventId, delivery, sentence })
  else if (delivery === undefined)
    output.line(...mark(output, eventId), quiet(sentence ?? 'No subscription receives it.'))
  else {
    const { subscription, state: name, attempts, durationMs, lastError, dueAt, timeline } = delivery
    const error = lastError ?? timeline.at(-1)?.error
    const isFailed = name === 'retrying' || name === 'dead'
    const took = durationMs === undefined ? '' : ` in ${duration(durationMs)}`
    output.line(
      ...[...mark(output, eventId), subscription, '  ', state(name), took],
      attempts > 1 || isFailed ? `, ${counted(attempts, 'attempt')}` : '',
      isFailed && error !== undefined ? red(`  ${error.name}: ${error.message}`) : '',
      name === 'retrying' && dueAt !== undefined
        ? quiet(`  again in ${duration(Math.max(0, dueAt.getTime() - output.now()))}`)
        : '',
    )
  }
}

/** As JSON `{ forward }`. */
export function writeForward(output: Output, attempt: ForwardAttempt): void {
  const { eventId, succeeded, status, durationMs, error = '', retryInMs } = attempt
  if (output.isJson) output.event({ forward: attempt })
  else if (succeeded)
    output.line(...mark(output, eventId), green(`forwarded, ${status ?? ''}`), ` in ${duration(durationMs)}`)
  else
    output.line(
      ...[...mark(output, eventId), red(`not forwarded: ${error}`)],
      retryInMs === undefined ? yellow('  given up') : quiet(`  again in ${duration(retryInMs)}`),
    )
}

/** What a line belongs to. */
function mark(output: Output, eventId: string): readonly (string | ReturnType<typeof quiet>)[] {
  return output.isTerminal ? ['  → ', quiet(short(eventId)), '  '] : ['→ ', eventId, '  ']
}
