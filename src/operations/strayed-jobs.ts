import type { Executor } from '../database/database.ts'
import type { EventFacts, SubscriptionFacts } from './explain-facts.ts'

/** Queues that are looked at. */
const maxQueues = 200

type Job = NonNullable<SubscriptionFacts['job']>

/**
 * Adds the jobs that an event has with subscriptions that no declaration of which matches it, as when its job was moved there: the facts of an
 * event look for jobs only where a pattern matches. Each queue is looked up by the ids of jobs that may hold the event.
 */
export async function withStrayedJobs(
  executor: Executor,
  eventId: string,
  facts: EventFacts,
): Promise<EventFacts> {
  const isUnmatched = ({ delivery, isHeld, declarations }: SubscriptionFacts): boolean =>
    delivery === null && !isHeld && !declarations.some(({ matches }) => matches)
  const names = facts.subscriptions.filter(isUnmatched).map(({ name }) => name)
  if (names.length === 0 || facts.outbox !== null) return facts
  const { rows } = await executor.query<{ name: string; job: Job }>(
    `select s.name, j.job from bus.event_jobs($1::uuid, array(
       select id from bus.subscriptions where name = any($2) order by name limit ${maxQueues})) as j (job)
     join bus.subscriptions s on s.id = (j.job ->> 'subscriptionId')::int`,
    [eventId, names],
  )
  const jobs = new Map(rows.map(({ name, job }) => [name, job]))
  const subscriptions = facts.subscriptions.map((each): SubscriptionFacts => {
    const job = isUnmatched(each) ? jobs.get(each.name) : undefined
    if (job === undefined) return each
    const state = job.state === 'active' ? 'delivering' : 'waiting'
    const none = { attempts: 0, failure: null, dueAt: null, settledAt: null, durationMs: null, timeline: [] }
    return { ...each, job: { ...job, isDeclined: true }, delivery: { ...none, state } }
  })
  return { ...facts, subscriptions }
}
