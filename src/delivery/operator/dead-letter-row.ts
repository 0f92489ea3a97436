import type { AttemptFailure } from '../attempts/failure.ts'
import type { DeadLetterState } from './dead-letter-filter.ts'

/** As `bus.dead_letters` returns it. */
export interface DeadLetterRow extends Record<string, unknown> {
  readonly event_id: string
  readonly subscription: string
  readonly job_id: string
  readonly attempts: number
  readonly failures: readonly AttemptFailure[]
  readonly dead_at: Date
  readonly tenant_id: string | null
  readonly ordering_key: string | null
  readonly key_state: 'blocked' | 'parked' | null
  readonly state: DeadLetterState
  readonly type: string | null
  readonly fingerprint: string | null
  readonly place: string
}
