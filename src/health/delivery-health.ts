import type { Database } from '../database/database.ts'
import type { DefaultPartition } from '../outbox/schema/partitions.ts'
import type { CanaryResult } from './canary-result.ts'
import { createFinding, maxItems, namesOf, type Finding } from './finding.ts'
import type { Lag } from './lags.ts'
import { readLimited } from './limited-read.ts'
import { unservedOf, type RegistryState } from './registry-health.ts'

/** The state of a subscription in `bus.health({ full: true })`. */
export interface SubscriptionHealth {
  readonly name: string
  /** `'behind'`: its lag is over its `lagLimitSeconds`, and it is neither paused, halted nor unserved. */
  readonly state: 'active' | 'behind' | 'paused' | 'circuit open' | 'unserved'
  /** For how long its first event has been due that may run now: 0 if none waits. Undefined if it could not be read. */
  readonly lagSeconds: number | undefined
  readonly lagLimitSeconds: number | undefined
}

/** Undispatched events that are older have been forgotten by the relays. */
const relayLimitSeconds = 30

/** How far back dead letters are new, in minutes. */
const deadMinutes = 15
const maxDead = 10_000

export function subscriptionsOf(
  registry: RegistryState,
  lags: ReadonlyMap<number, Lag>,
): readonly SubscriptionHealth[] {
  const unserved = new Set(unservedOf(registry))
  return registry.subscriptions.map(({ id, name, pausedAt, circuitOpenedAt, lagLimitSeconds }) => {
    const lagSeconds = lags.get(id)?.lagSeconds
    const isBehind = lagLimitSeconds !== null && lagSeconds !== undefined && lagSeconds > lagLimitSeconds
    const state =
      pausedAt !== null
        ? 'paused'
        : circuitOpenedAt !== null
          ? 'circuit open'
          : unserved.has(name)
            ? 'unserved'
            : isBehind
              ? 'behind'
              : 'active'
    return { name, state, lagSeconds, lagLimitSeconds: lagLimitSeconds ?? undefined }
  })
}

export function findBehind(subscriptions: readonly SubscriptionHealth[]): readonly Finding[] {
  const behind = subscriptions
    .filter(({ state }) => state === 'behind')
    .toSorted((a, b) => (b.lagSeconds ?? 0) - (a.lagSeconds ?? 0))
  const [worst] = behind
  if (worst === undefined) return []
  return [
    createFinding(
      'subscription-behind',
      `Events wait longer than \`lagLimitSeconds\` allows, up to ${Math.round(worst.lagSeconds ?? 0)} s: ${namesOf(behind.map(({ name }) => name))}`,
      { subscriptions: behind.slice(0, maxItems), count: behind.length },
    ),
  ]
}

export function findRelayBehind(lagSeconds: number): readonly Finding[] {
  if (lagSeconds <= relayLimitSeconds) return []
  return [
    createFinding(
      'relay-behind',
      `The first event of the outbox has waited for ${Math.round(lagSeconds)} s: no relay dispatches it`,
      { lagSeconds: Math.round(lagSeconds) },
    ),
  ]
}

/** The dead letters of the last minutes, by subscription, read by the index of `bus.failing` on their times. */
export async function findNewDeadLetters(database: Pick<Database, 'query'>): Promise<readonly Finding[]> {
  const rows = await readLimited<{ name: string; count: number }>(
    database,
    `select coalesce(s.name, f.subscription_id::text) as name, count(*)::int as count
     from (
       select d.subscription_id from bus.failing d
       where d.state <> 'retrying' and d.subscription_id > 0 and d.failed_at > now() - interval '${deadMinutes} minutes'
       order by d.failed_at desc limit ${maxDead}
     ) f
     left join bus.subscriptions s on s.id = f.subscription_id
     group by 1 order by 2 desc, 1 limit ${maxItems}`,
  )
  const count = rows.reduce((sum, row) => sum + row.count, 0)
  if (count === 0) return []
  const counted = count >= maxDead ? `${maxDead} or more` : `${count}`
  return [
    createFinding(
      'dead-letters-growing',
      `${counted} events have become dead letters in the last ${deadMinutes} minutes: ${namesOf(rows.map(({ name }) => name))}`,
      { subscriptions: rows, count, minutes: deadMinutes },
    ),
  ]
}

export function findPartitionProblems(
  missing: readonly string[],
  defaultPartition: DefaultPartition | undefined,
): readonly Finding[] {
  const findings: Finding[] = []
  if (missing.length > 0)
    findings.push(
      createFinding(
        'partitions-missing',
        'Partitions of coming months are missing: their events would go to the default partitions',
        {
          missing,
        },
      ),
    )
  if (defaultPartition !== undefined)
    findings.push(
      createFinding(
        'default-partition-used',
        'A month that had begun without a partition is in the default partitions',
        {
          eventCount: defaultPartition.eventCount,
          deliveryCount: defaultPartition.deliveryCount,
        },
      ),
    )
  return findings
}

export function findCanaryProblem(last: CanaryResult | undefined): readonly Finding[] {
  if (last === undefined || last.ok) return []
  const { eventId, publishedAt, failedStep, steps } = last
  const what = {
    relay: 'the relay did not dispatch it',
    worker: 'no worker handled it',
    receipt: 'it got no receipt',
  }
  return [
    createFinding(
      'canary-failing',
      `The last test event did not come through: ${failedStep === undefined ? 'nothing is known of it' : what[failedStep]}`,
      { eventId, publishedAt, failedStep, steps },
    ),
  ]
}
