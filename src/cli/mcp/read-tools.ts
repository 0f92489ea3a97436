import type { Bus } from '../../bus-interface.ts'
import type { StatusFilter } from '../../operations/delivery-status.ts'
import type { OperationState } from '../../operations/operation.ts'
import type { StatsGrouping } from '../../operations/stats-options.ts'
import { commandLine } from '../output/command-line.ts'
import { UsageError } from '../command/usage-error.ts'
import { resolveGroup } from '../views/resolve-group.ts'
import { findEventId } from '../views/find-event-id.ts'
import { readEventPage } from '../views/read-event-page.ts'
import { readStatus } from '../views/read-status.ts'
import { numberOf, objectOf, textOf, textsOf, timeOf } from './arguments.ts'
import {
  limitProperty,
  readTool,
  textProperty,
  textsProperty,
  timeProperty,
  type Properties,
  type Tool,
} from './tool.ts'

const deliveryStates = [
  ...['waiting', 'delivering', 'retrying', 'delivered', 'expired', 'erased', 'discarded', 'dead'],
]

/** What dead letters are chosen by. */
export const letterProperties: Properties = {
  subscription: textProperty('Of this subscription'),
  tenant: textProperty('Of this tenant'),
  fingerprint: textProperty('Of this kind of error: from dead_letter_groups'),
  error_name: textProperty('Whose last error has this class, such as TypeError'),
  error_code: textProperty('Whose last error has this code, such as ECONNREFUSED'),
  from: timeProperty('Dead since then or later'),
  to: timeProperty('Dead before'),
}

/** The conditions of {@link letterProperties}. */
export async function letterConditions(
  bus: Bus,
  given: Readonly<Record<string, unknown>>,
): Promise<{
  readonly subscription: string | undefined
  readonly tenantId: string | undefined
  readonly fingerprint: string | undefined
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  readonly from: Date | undefined
  readonly to: Date | undefined
}> {
  const fingerprint = await resolveGroup(bus, textOf(given, 'fingerprint'), 'dead_letter_groups')
  return {
    ...{ subscription: textOf(given, 'subscription'), tenantId: textOf(given, 'tenant') },
    ...{ fingerprint, errorName: textOf(given, 'error_name') },
    ...{ errorCode: textOf(given, 'error_code'), from: timeOf(given, 'from'), to: timeOf(given, 'to') },
  }
}

const usualRows = 20
const maxRows = 100
const limit = limitProperty(maxRows, usualRows)
const rowsOf = (given: Readonly<Record<string, unknown>>): number => numberOf(given, 'limit') ?? usualRows

/** How long a search goes on where no index helps. */
const searchMs = 5000

export const readTools: readonly Tool[] = [
  readTool(
    'status',
    'What needs a person now: findings with their remedies, each subscription with its lag and what waits for it, the outbox, dead letters by error, running operations. Begin here when something is wrong.',
    {},
    async ({ bus }) => readStatus(bus, commandLine),
  ),
  readTool(
    'lookup',
    'What a text is that somebody has in hand: an id of any kind, a business id, idempotency key, correlation, subject, ordering key, tenant, subscription or event type.',
    { text: textProperty('The text') },
    async ({ bus }, given) => bus.lookup(textOf(given, 'text') ?? ''),
    ['text'],
  ),
  readTool(
    'show_event',
    'Where an event is and why, for each subscription; the timeline of its attempts with their errors; its cause and effects; its payload, redacted. Answers "where is payment X".',
    {
      id: textProperty(
        'The id of the event, or a business id, idempotency key, correlation or subject that names it',
      ),
    },
    async ({ bus }, given) => showEvent(bus, textOf(given, 'id') ?? ''),
    ['id'],
  ),
  readTool(
    'find_events',
    'Finds events of the log, newest first. Pass `next` of the answer as `after` for the next page.',
    {
      types: textsProperty('Of these types'),
      pattern: textProperty('Of types that match, such as payment.*'),
      tenant: textProperty('Of this tenant'),
      status: textProperty('Where they are for a subscription', deliveryStates),
      subscription: textProperty('The subscription that `status` is about (any)'),
      from: timeProperty('Published then or later'),
      to: timeProperty('Published before'),
      payload: { type: 'object', description: 'A part of the payload, such as {"orderId":"42"}' },
      subject: textProperty('What they are about'),
      correlation: textProperty('Of this correlation'),
      order: textProperty('Which come first', ['newest', 'oldest']),
      after: textProperty('Goes on there'),
      limit,
    },
    async ({ bus }, given) => findEvents(bus, given),
  ),
  readTool(
    'dead_letter_groups',
    'Dead letters grouped by what went wrong: how many, since when, in which subscriptions. Look here before single dead letters.',
    { ...letterProperties, limit },
    async ({ bus }, given) => ({
      groups: await bus.deadLetters.groups({ ...(await letterConditions(bus, given)), limit: rowsOf(given) }),
    }),
  ),
  readTool(
    'dead_letters',
    'Single dead letters with their errors. Pass `cursor` of the last one as `after` for the next page.',
    { ...letterProperties, after: textProperty('Goes on there'), limit },
    async ({ bus }, given) => ({
      deadLetters: await bus.deadLetters.list({
        ...(await letterConditions(bus, given)),
        ...{ after: textOf(given, 'after'), limit: rowsOf(given) },
      }),
    }),
  ),
  readTool(
    'blocked_keys',
    'Keys of ordered subscriptions that wait, longest first: for a person after an event that failed, with its error and how many events wait behind it; or for a handler that ignores its signal.',
    { subscription: textProperty('Of this subscription'), limit },
    async ({ bus }, given) => ({
      keys: await bus.queries.blockedKeys({
        subscription: textOf(given, 'subscription'),
        limit: rowsOf(given),
      }),
    }),
  ),
  readTool(
    'subscriptions',
    'Subscriptions with their options, patterns and state; one of them if it is named.',
    { name: textProperty('Only this one') },
    async ({ bus }, given) => {
      const name = textOf(given, 'name')
      return {
        subscriptions:
          name === undefined ? await bus.subscriptions.list() : [await bus.subscriptions.get(name)],
      }
    },
  ),
  readTool(
    'stats',
    'Counts and durations of the past: published, delivered, failed, dead; wait and run times as percentiles.',
    {
      by: textProperty('Grouped by (hour)', ['minute', 'hour', 'day', 'subscription', 'tenant']),
      from: timeProperty('From then'),
      to: timeProperty('Until then'),
      subscription: textProperty('Of this subscription'),
      tenant: textProperty('Of this tenant'),
      limit,
    },
    async ({ bus }, given) =>
      rounded(
        await bus.stats({
          // The schema of the tool has checked it.
          by: textOf(given, 'by') as StatsGrouping | undefined,
          ...{ from: timeOf(given, 'from'), to: timeOf(given, 'to'), limit: rowsOf(given) },
          ...{ subscription: textOf(given, 'subscription'), tenantId: textOf(given, 'tenant') },
        }),
      ),
  ),
  readTool(
    'operations',
    'Redrives, discards, replays and removals that are under way or done, newest first, with their progress.',
    {
      state: textProperty('In this state', ['running', 'paused', 'stopped', 'done', 'cancelled']),
      subscription: textProperty('Of this subscription'),
      limit,
    },
    async ({ bus }, given) => ({
      operations: await bus.operations.list({
        state: textOf(given, 'state') as OperationState | undefined,
        ...{ subscription: textOf(given, 'subscription'), limit: rowsOf(given) },
      }),
    }),
  ),
  readTool(
    'audit',
    'Who changed what and why, newest first.',
    {
      by: textProperty('By this person or program'),
      action: textProperty('Such as deadLetters.redrive'),
      subscription: textProperty('Of this subscription'),
      event_id: textProperty('Of this event'),
      limit,
    },
    async ({ bus }, given) => ({
      records: await bus.audit.list({
        ...{ by: textOf(given, 'by'), action: textOf(given, 'action'), limit: rowsOf(given) },
        ...{ subscription: textOf(given, 'subscription'), eventId: textOf(given, 'event_id') },
      }),
    }),
  ),
]

/** Figures as a person reads them: estimates have no more than two digits that mean something after the point. */
function rounded<T>(value: T): T {
  if (typeof value === 'number') return (Math.round(value * 100) / 100) as T
  if (value === null || typeof value !== 'object' || value instanceof Date) return value
  if (Array.isArray(value)) return value.map(rounded) as T
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, rounded<unknown>(each)])) as T
}

async function showEvent(bus: Bus, text: string): Promise<object> {
  const notes: string[] = []
  const note = (...pieces: readonly (string | { readonly text: string })[]): void =>
    void notes.push(pieces.map((piece) => (typeof piece === 'string' ? piece : piece.text)).join(''))
  const byPayload = (part: string): string => `find_events with {"payload":${part}}`
  const id = await findEventId(bus, text, { note, command: commandLine }, byPayload)
  const page = id === undefined ? undefined : await readEventPage(bus, id)
  if (page !== undefined) return page
  return { problem: id === undefined ? notes.join('\n') : `There is no event ${id} in the log.` }
}

async function findEvents(bus: Bus, given: Readonly<Record<string, unknown>>): Promise<object> {
  const state = textOf(given, 'status')
  const subscription = textOf(given, 'subscription')
  if (subscription !== undefined && state === undefined)
    throw new UsageError('`subscription` says which subscription `status` is about: give both')
  const filter = {
    ...{
      type: textsOf(given, 'types'),
      pattern: textOf(given, 'pattern'),
      tenantId: textOf(given, 'tenant'),
    },
    status: (state === undefined ? undefined : { state, subscription }) as StatusFilter | undefined,
    ...{ from: timeOf(given, 'from'), to: timeOf(given, 'to'), payload: objectOf(given, 'payload') },
    ...{ subject: textOf(given, 'subject'), correlationId: textOf(given, 'correlation') },
    order: textOf(given, 'order') as 'newest' | 'oldest' | undefined,
  }
  const wanted = rowsOf(given)
  const deadline = performance.now() + searchMs
  let page = await bus.events.search({ ...filter, after: textOf(given, 'after'), limit: wanted })
  const events = [...page.events]
  while (page.next !== undefined && events.length < wanted && performance.now() < deadline) {
    page = await bus.events.search({ ...filter, after: page.next, limit: wanted - events.length })
    events.push(...page.events)
  }
  return { events, next: page.next, searched: page.searched }
}
