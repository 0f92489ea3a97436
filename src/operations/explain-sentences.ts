import type { DeliveryReason } from './delivery-reason.ts'
import type { LastError, ReplayedDelivery } from './event-deliveries.ts'

const at = (time: Date | undefined): string => (time === undefined ? '' : ` ${time.toISOString()}`)
const since = (time: Date | undefined): string => (time === undefined ? '' : ` since${at(time)}`)
const until = (time: Date | undefined): string => (time === undefined ? '' : ` until${at(time)}`)
const by = (name: string | undefined): string => (name === undefined ? '' : ` by ${name}`)
const because = (text: string | undefined): string => (text === undefined || text === '' ? '' : `: ${text}`)

function count(number: number, what: string, isPartial = false): string {
  return `${isPartial ? 'more than ' : ''}${number.toLocaleString('en-US')} ${what}${number === 1 ? '' : 's'}`
}

function after(error: LastError | undefined): string {
  if (error === undefined) return ''
  const { name, code, message } = error
  return `: ${name}${code === undefined ? '' : ` (${code})`}${because(message)}`
}

/** One sentence for a reason. */
export function sentenceOf(given: DeliveryReason): string {
  switch (given.reason) {
    case 'not-dispatched':
      return given.relayCount === 0
        ? 'Not dispatched yet: no running process has a relay.'
        : 'Not dispatched yet: it waits in the outbox for a relay.'
    case 'scheduled':
      return `Scheduled${until(given.until)}.`
    case 'cancelled':
      return `Cancelled${at(given.at)}, before it was due.`
    case 'no-pattern-matches':
      return `Not routed: no pattern matches ${given.type} (${given.patterns.join(', ')}).`
    case 'predicate-false':
      return `Not routed: \`where\` is not true of its payload${because(given.where.join('; '))}.`
    case 'predicate-error':
      return `Not routed: \`where\` cannot judge its payload${because(given.where.join('; '))}${given.problem === undefined ? '' : ` (${given.problem})`}.`
    case 'not-routed':
      return `Not routed: it was dispatched before the subscription wanted it${given.registeredAt === undefined ? '' : ` (registered${at(given.registeredAt)})`}.`
    case 'held':
      return 'Held back: a lock that its jobs need is taken, or the subscription catches up with the log first. The relay tries again.'
    case 'paused':
      return `The subscription is paused${since(given.since)}${by(given.by)}${because(given.why)}.`
    case 'circuit-open':
      return `The circuit breaker is open${since(given.since)}; the next event is tried${at(given.until)}${because(given.error)}.`
    case 'key-blocked':
      return `Its key ${given.orderingKey} is blocked by event ${given.byEventId ?? 'that is gone'}${since(given.since)}: release the key.`
    case 'key-parked':
      return `Parked: its key ${given.orderingKey} has failed with event ${given.byEventId ?? 'that is gone'}${since(given.since)}: release the key.`
    case 'key-overrunning':
      return `Its key ${given.orderingKey} waits for a handler that ignores its signal, with event ${given.byEventId ?? 'that is gone'}${since(given.since)}.`
    case 'behind-key':
      return `Waiting behind ${count(given.aheadCount, 'event', given.isPartial)} of its key ${given.orderingKey}.`
    case 'no-instance':
      return `No running process has this subscription${given.service === undefined ? '' : `: start ${given.service}`}.`
    case 'not-covered':
      return `The running code does not cover it${since(given.since)}${given.versions.length === 0 ? '' : ` (bossbus ${given.versions.join(', ')})`}: it waits for another version of the service.`
    case 'tenant-limit':
      return `Its tenant is at its limit of ${count(given.limit, 'handler')} at a time; put off${until(given.until)}.`
    case 'behind-tenant':
      return `Waiting behind ${count(given.aheadCount, 'event', given.isPartial)} of its tenant.`
    case 'waiting':
      return given.aheadCount === undefined || given.aheadCount === 0
        ? 'Waiting for its first attempt; nothing is in its way.'
        : `Waiting for its first attempt behind ${count(given.aheadCount, 'event', given.isPartial)}.`
    case 'delivering': {
      const [only, ...others] = given.instances
      const where = only === undefined || others.length > 0 ? '' : ` by ${only.host}, process ${only.pid}`
      const together =
        given.eventCount === undefined || given.eventCount < 2
          ? ''
          : `, in a job of ${count(given.eventCount, 'event')}`
      return `Being delivered${since(given.since)}${where}${together}.${given.isOverdue ? ` Its heartbeat is overdue (last${at(given.heartbeatAt)}): the process may be gone, and it will be tried again.` : ''}`
    }
    case 'retrying':
      return `Retrying after ${count(given.attempts, 'attempt')}${given.until === undefined ? '' : `, next${at(given.until)}`}${after(given.error)}.`
    case 'dead':
      return `Dead letter${since(given.since)}, after ${count(given.attempts, 'attempt')}${after(given.error)}.`
    case 'expired':
      return `Expired before it was delivered, recorded${at(given.at)}.`
    case 'erased':
      return `Erased before it was delivered, recorded${at(given.at)}.`
    case 'discarded':
      return `Discarded${at(given.at)}${given.by === undefined ? '' : ` by ${given.by}`}${given.because === undefined ? '' : `: ${given.because}`}.${given.replacedBy === undefined ? '' : ` Its edited copy is ${given.replacedBy}.`}`
    default:
      return `Delivered${at(given.at)} by attempt ${given.attempt}${given.instanceId === undefined ? '' : ` of instance ${given.instanceId}`}.`
  }
}

/** Whether a replay has an event still to deliver, or a dead letter of it. */
export function isOpenReplay({ state }: ReplayedDelivery): boolean {
  return state !== 'delivered' && state !== 'expired' && state !== 'erased'
}

/** One sentence for where an event is in a replay that {@link isOpenReplay}. */
export function replaySentence({ replayId, state, attempts, dueAt, lastError }: ReplayedDelivery): string {
  const replay = `In the replay ${replayId}`
  switch (state) {
    case 'planned':
      return `The replay ${replayId} has yet to come to it.`
    case 'waiting':
      return `${replay} it waits for its first attempt.`
    case 'delivering':
      return `${replay} it is being delivered.`
    case 'retrying':
      return `${replay} it is retried after ${count(attempts, 'attempt')}${dueAt === undefined ? '' : `, next${at(dueAt)}`}${after(lastError)}.`
    default:
      return `${replay} it is a dead letter, after ${count(attempts, 'attempt')}${after(lastError)}.`
  }
}
