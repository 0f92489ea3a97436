import type { AttemptRecord, EventDelivery, LastError } from '../../operations/event-deliveries.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import { counted, duration } from '../output/cells.ts'
import { green, quiet, red, yellow, type Piece } from '../output/styled.ts'

/** Something that happened to an event, or will. */
export interface Moment {
  readonly at: Date
  readonly subscription: string | undefined
  readonly what: Piece
}

/** Error, code and message on one line. */
export function errorText({
  name,
  code,
  message,
}: Pick<LastError, 'name' | 'message'> & { readonly code?: string | undefined }): string {
  return `${name}${code === undefined ? '' : ` (${code})`}${message === '' ? '' : `: ${message}`}`
}

/** What is known of an event, in the order of time. What the bus does not keep is not made up. */
export function timelineOf(event: HistoryEvent, deliveries: readonly EventDelivery[]): readonly Moment[] {
  const { createdAt, availableAt, cancelledAt, erasedAt } = event
  const ofEvent: (Moment | undefined)[] = [
    moment(createdAt, `published by ${event.source}`),
    availableAt === undefined || availableAt <= createdAt
      ? undefined
      : moment(availableAt, 'due, as it was scheduled'),
    moment(cancelledAt, yellow('cancelled')),
    moment(erasedAt, yellow('payload erased')),
  ]
  return [...ofEvent, ...deliveries.flatMap(ofDelivery)]
    .filter((each) => each !== undefined)
    .toSorted((a, b) => a.at.getTime() - b.at.getTime())
}

function moment(at: Date | undefined, what: Piece, subscription?: string): Moment | undefined {
  return at === undefined ? undefined : { at, what, subscription }
}

function ofDelivery(delivery: EventDelivery): (Moment | undefined)[] {
  const { subscription, timeline, settledAt, dueAt, discard } = delivery
  const isSettled = ['expired', 'erased', 'discarded'].includes(delivery.state)
  return [
    ...timeline.map((attempt) => moment(attempt.endedAt, attemptText(attempt), subscription)),
    isSettled
      ? moment(
          settledAt,
          `${delivery.state}${discard?.by === undefined ? '' : ` by ${discard.by}`}${discard?.reason === undefined ? '' : `: ${discard.reason}`}`,
          subscription,
        )
      : undefined,
    delivery.state === 'retrying' ? moment(dueAt, quiet('next attempt'), subscription) : undefined,
    ...(delivery.replays ?? []).map(({ replayId, state: name, settledAt: at, attempts }) =>
      moment(at, `${name} in replay ${replayId}, after ${counted(attempts, 'attempt')}`, subscription),
    ),
  ]
}

function attemptText({ attempt, succeeded, durationMs, error }: AttemptRecord): Piece {
  const took = durationMs === undefined ? '' : ` after ${duration(durationMs)}`
  return succeeded
    ? green(`attempt ${attempt} succeeded${took}`)
    : red(`attempt ${attempt} failed${took}${error === undefined ? '' : `: ${errorText(error)}`}`)
}

/** Attempts of which the bus has kept no time. */
export function untimedAttempts({ attempts, timeline }: EventDelivery): number {
  return Math.max(0, attempts - timeline.length)
}
