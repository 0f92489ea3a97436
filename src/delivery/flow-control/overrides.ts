import type pg from 'pg'
import { writeAudit } from '../../audit/audit.ts'
import type { Database } from '../../database/database.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'
import { isPausedByPersonSql, notifyState, overridesSql } from './subscription-state.ts'

/** What an operator sets in place of the code's options. */
export interface OptionOverrides {
  readonly concurrency?: number
  readonly retry?: ResolvedRetry
  readonly paused?: true
}

/** Who sets them, and until when. */
export interface OverrideChange {
  readonly by: string
  readonly reason: string | undefined
  /** In seconds from now, or a time. Undefined if nothing is set. */
  readonly expiry: number | Date | undefined
}

/**
 * Sets the overrides of a subscription, in place of those that were set before. Relays and workers of every process follow. Locks its
 * row. Returns false if it does not exist.
 */
export async function setOverrides(
  client: pg.ClientBase,
  name: string,
  overrides: OptionOverrides,
  { by, reason, expiry }: OverrideChange,
): Promise<boolean> {
  const { rows } = await client.query<{
    id: number
    isPausedByPerson: boolean
    before: object | null
    until: Date | null
  }>(
    `select s.id, ${isPausedByPersonSql} as "isPausedByPerson", ${overridesSql} as before,
       coalesce($2::timestamptz, now() + $3 * interval '1 second') as until
     from bus.subscriptions s where s.name = $1 for update`,
    [name, expiry instanceof Date ? expiry : null, typeof expiry === 'number' ? expiry : null],
  )
  const [found] = rows
  if (found === undefined) return false
  // Whoever is paused by a person stays so when this expires.
  const { paused: _, ...others } = overrides
  const stored = found.isPausedByPerson ? others : overrides
  const isSet = Object.keys(overrides).length > 0
  const to = isSet ? { ...overrides, expiresAt: found.until } : null
  await writeAudit(
    client,
    {
      ...{ by, reason, action: 'subscriptions.setOptions', subscription: name },
      change: { from: found.before, to },
    },
    {},
  )
  await client.query(
    isSet
      ? `update bus.subscriptions
         set overrides = $2, overridden_by = $3, override_reason = $4, overridden_at = now(), overrides_until = $5,
           ${setPause("($2::jsonb->>'paused') is not null", ['now()', '$3', '$4'])},
           revision = nextval('bus.subscription_revision')
         where id = $1`
      : `update bus.subscriptions set ${noOverrides}, revision = nextval('bus.subscription_revision') where id = $1`,
    isSet ? [found.id, JSON.stringify(stored), by, reason ?? null, found.until] : [found.id],
  )
  await notifyState(client, [found.id])
  return true
}

/**
 * In SQL: a pause until the overrides expire is one like any other, so that whoever reads the subscription sees it. It ends with them; that of
 * a person stays.
 */
function setPause(isWanted: string, values: readonly [at: string, by: string, reason: string]): string {
  return ['paused_at', 'paused_by', 'pause_reason']
    .map(
      (column, index) =>
        `${column} = case when ${isWanted} then ${values[index]} when (overrides->>'paused') is null then ${column} end`,
    )
    .join(', ')
}

const noOverrides = `${setPause('false', ['null', 'null', 'null'])},
  overrides = null, overridden_by = null, override_reason = null, overridden_at = null, overrides_until = null`

/** Clears what has expired, so that relays load the options of the code again. Repeating it changes nothing. */
export async function clearOverrides(database: Pick<Database, 'query'>): Promise<void> {
  const { rows } = await database.query<{ id: number }>(
    `update bus.subscriptions set ${noOverrides}, revision = nextval('bus.subscription_revision')
     where overrides_until <= now() returning id`,
  )
  if (rows.length > 0)
    await notifyState(
      database,
      rows.map(({ id }) => id),
    )
}
