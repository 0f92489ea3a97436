import type { Database } from '../database/database.ts'
import type { LoopProgress } from '../foundation/loop-progress.ts'
import type { RelayState } from '../outbox/relay/relay.ts'
import { createFinding, type Finding } from './finding.ts'

/** What a process knows about itself. */
export interface ProcessState {
  readonly isStarted: boolean
  readonly state: string
  readonly relay: RelayState
  /** Whether it should listen: it delivers events. */
  readonly isDelivering: boolean
  readonly isListening: boolean
  readonly overrunningHandlerCount: number
  readonly loops: readonly LoopProgress[]
  readonly loopLimitSeconds: number
}

/** A difference of the clocks up to this is not mentioned. */
const clockLimitMs = 5000

/** A loop that is later than it may be. */
interface HangingLoop {
  readonly loop: string
  readonly lateSeconds: number
}

export function hangingLoops({ loops, loopLimitSeconds }: ProcessState): readonly HangingLoop[] {
  return loops
    .map(({ name, lateMs }) => ({ loop: name, lateSeconds: Math.round(lateMs / 100) / 10 }))
    .filter(({ lateSeconds }) => lateSeconds > loopLimitSeconds)
}

export function findProcessProblems(
  process: ProcessState,
  hanging: readonly HangingLoop[],
): readonly Finding[] {
  const { isStarted, state, relay, isDelivering, isListening, overrunningHandlerCount } = process
  const findings: Finding[] = []
  if (!isStarted)
    findings.push(createFinding('not-started', `The bus is not running: it is ${state}`, { state }))
  if (hanging.length > 0)
    findings.push(
      createFinding(
        'loop-hangs',
        `No progress for ${Math.max(...hanging.map(({ lateSeconds }) => lateSeconds))} s: ${hanging
          .map(({ loop }) => loop)
          .slice(0, 3)
          .join(', ')}`,
        { loops: hanging },
      ),
    )
  if (relay === 'failing')
    findings.push(
      createFinding('relay-failing', 'The relay of this process cannot dispatch events, and tries again'),
    )
  if (isDelivering && isStarted && !isListening)
    findings.push(
      createFinding(
        'notifications-lost',
        'Notifications of the database do not arrive: events are delivered up to a second later',
        {
          relay,
        },
      ),
    )
  if (overrunningHandlerCount > 0)
    findings.push(
      createFinding(
        'handlers-overrunning',
        `${overrunningHandlerCount} handlers of this process run on although their attempts have ended, and occupy slots`,
        { count: overrunningHandlerCount },
      ),
    )
  return findings
}

/** Asks the database for its time. @throws if it does not answer */
export async function measureClock(database: Pick<Database, 'query'>): Promise<Finding | undefined> {
  const askedAt = Date.now()
  const { rows } = await database.query<{ ms: number }>(
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms',
  )
  const answeredAt = Date.now()
  const serverMs = rows[0]?.ms ?? askedAt
  const differenceMs = serverMs < askedAt ? serverMs - askedAt : Math.max(0, serverMs - answeredAt)
  if (Math.abs(differenceMs) <= clockLimitMs) return undefined
  const seconds = Math.round(Math.abs(differenceMs) / 100) / 10
  return createFinding(
    'clock-differs',
    `The clock of the database is ${seconds} s ${differenceMs > 0 ? 'ahead of' : 'behind'} that of this process`,
    { differenceMs: Math.round(differenceMs) },
  )
}
