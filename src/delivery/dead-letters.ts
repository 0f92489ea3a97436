import { ConfigurationError } from '../events/errors.ts'
import { integerOption } from '../events/options.ts'
import type { Database } from '../outbox/database.ts'
import { bossSchema } from './boss.ts'
import type { AttemptFailure } from './failure.ts'
import type { JobData } from './job.ts'
import type { FailureOutput } from './settlement.ts'
import { deadLetterQueueName } from './subscription.ts'

/** An event that a subscription has given up on. */
export interface DeadLetter {
  /** The id of the dead letter: a job of pg-boss. */
  readonly id: string
  readonly subscription: string
  /** The id of the event, in the log. */
  readonly eventId: string
  /** Attempts that were made. */
  readonly attempts: number
  /** How they failed, as far as it is known: the first and the latest ones. */
  readonly failures: readonly AttemptFailure[]
  readonly deadAt: Date
}

/** Reads the dead letters of all subscriptions. */
export interface DeadLetters {
  /** The dead letters, oldest first, up to `limit` (1 to 1,000, default 100); of one subscription, when it is named. */
  list: (filter?: {
    readonly subscription?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<DeadLetter[]>
}

interface DeadLetterRow {
  readonly id: string
  readonly subscription: string
  readonly data: JobData
  readonly source_retry_count: number | null
  readonly source_output: (Partial<FailureOutput> & { readonly value?: { readonly message?: string } }) | null
  readonly created_on: Date
}

export function createDeadLetters(database: Database): DeadLetters {
  return {
    async list({ subscription, limit } = {}) {
      const count = integerOption('limit', limit, { min: 1, max: 1000, default: 100 })
      if (subscription !== undefined && typeof subscription !== 'string') {
        throw new ConfigurationError(
          'BUS_INVALID_OPTION',
          'Expected `subscription` to be the name of a subscription',
        )
      }
      const { rows } = await database.query<DeadLetterRow & Record<string, unknown>>(
        `select j.id, s.name as subscription, j.data, j.source_retry_count, j.source_output, j.created_on
         from bus.subscriptions s
         join ${bossSchema}.job j on j.name = 'bus.' || s.name || '.dead'
         where j.state < 'active' and ($1::text is null or (s.name = $1 and j.name = $2))
         order by j.created_on, j.id limit $3`,
        [subscription ?? null, subscription === undefined ? null : deadLetterQueueName(subscription), count],
      )
      return rows.map(toDeadLetter)
    },
  }
}

function toDeadLetter({
  id,
  subscription,
  data,
  source_retry_count,
  source_output,
  created_on,
}: DeadLetterRow): DeadLetter {
  const before = data.attempts ?? 0
  const known = source_output?.failures ?? data.failures ?? []
  const attempts = source_output?.attempts ?? before + (source_retry_count ?? 0) + 1
  // The last attempt was ended by pg-boss, because its worker was lost: all it left is a message.
  const lost = source_output?.value?.message
  const failures =
    lost === undefined
      ? known
      : [...known, { attempt: attempts, at: created_on.toISOString(), name: 'WorkerLost', message: lost }]
  return { id, subscription, eventId: data.eventIds[0] ?? '', attempts, failures, deadAt: created_on }
}
