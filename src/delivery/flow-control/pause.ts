import type pg from 'pg'
import { writeAudit } from '../../audit/audit.ts'
import { closedCircuit, isPausedByPersonSql, isPausedSql, notifyState } from './subscription-state.ts'

/** Who pauses or resumes a subscription, and why. */
export interface PauseChange {
  /** The person or program, if it was named. */
  readonly by: string | undefined
  /** Who is recorded if nobody was named: the service. */
  readonly service: string
  readonly reason: string | undefined
}

/**
 * Pauses a subscription in every process. Returns whether it was not paused before; undefined if it does not exist. Of two
 * concurrent changes one waits for the other's lock of the row, and changes nothing more. Other processes are notified at the commit.
 */
export async function pauseSubscription(
  client: pg.ClientBase,
  name: string,
  { by, service, reason }: PauseChange,
): Promise<boolean | undefined> {
  const found = await lock(client, name)
  if (found?.isPausedByPerson !== false) return found && false
  await writeAudit(
    client,
    { by: by ?? service, reason, action: 'subscriptions.pause', subscription: name },
    {},
  )
  await client.query(
    // It outlasts a pause until a time, which an operator has set with other options.
    `update bus.subscriptions set paused_at = now(), paused_by = $2, pause_reason = $3, overrides = overrides - 'paused' where id = $1`,
    [found.id, by ?? null, reason ?? null],
  )
  await notifyState(client, [found.id])
  return true
}

/**
 * Resumes a subscription that is paused, also until a time, or whose circuit breaker is open. Returns whether it was either; undefined
 * if it does not exist. Concurrent changes as above.
 */
export async function resumeSubscription(
  client: pg.ClientBase,
  name: string,
  { by, service, reason }: PauseChange,
): Promise<boolean | undefined> {
  const found = await lock(client, name)
  if (found === undefined) return undefined
  const { isPaused, isOpen } = found
  if (!isPaused && !isOpen) return false
  await writeAudit(
    client,
    {
      ...{ by: by ?? service, reason, action: 'subscriptions.resume', subscription: name },
      change: { wasPaused: isPaused, wasCircuitOpen: isOpen },
    },
    {},
  )
  await client.query(
    `update bus.subscriptions
     set paused_at = null, paused_by = null, pause_reason = null, overrides = overrides - 'paused', ${closedCircuit}
     where id = $1`,
    [found.id],
  )
  await notifyState(client, [found.id])
  return true
}

interface LockedState {
  readonly id: number
  readonly isPaused: boolean
  readonly isPausedByPerson: boolean
  readonly isOpen: boolean
}

async function lock(client: pg.ClientBase, name: string): Promise<LockedState | undefined> {
  const { rows } = await client.query<LockedState>(
    `select s.id, ${isPausedSql} as "isPaused", ${isPausedByPersonSql} as "isPausedByPerson", s.circuit_opened_at is not null as "isOpen"
     from bus.subscriptions s where s.name = $1 for update`,
    [name],
  )
  return rows[0]
}
