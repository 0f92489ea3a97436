import { namesOf } from '../../health/finding.ts'
import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** Counts stop here. */
const maxCounted = 10_000

interface Counted extends Record<string, unknown> {
  readonly name: string
  readonly count: number
}

/** Keys of ordered subscriptions whose events wait for a person. */
export const blockedKeysCheck: Check = {
  name: 'blocked keys',
  needs: 'bus',
  async run({ read }) {
    const rows = await read<Counted>(
      `select coalesce(s.name, k.subscription_id::text) as name, count(*)::int as count
       from (select subscription_id from bus.ordered_keys where failed_at is not null and state in ('blocked', 'parked') order by failed_at limit ${maxCounted}) k
       left join bus.subscriptions s on s.id = k.subscription_id group by 1 order by 2 desc, 1 limit 100`,
    )
    if (rows.length === 0) return []
    return [
      found(
        'keys-blocked',
        `${total(rows)} keys wait for a person after an event that failed, with the events behind it: ${namesOf(rows.map(({ name }) => name))}`,
        'Mend the cause, then: npx bossbus keys release <subscription>, which has them tried again, or with --skip goes on behind them',
        { subscriptions: rows, count: sum(rows) },
      ),
    ]
  },
}

/** Dead letters that nobody has redriven or discarded. */
export const deadLettersCheck: Check = {
  name: 'dead letters',
  needs: 'bus',
  async run({ read }) {
    const rows = await read<Counted>(
      `select coalesce(s.name, f.subscription_id::text) as name, count(*)::int as count
       from (select subscription_id from bus.failing where state <> 'retrying' and subscription_id > 0 order by failed_at desc limit ${maxCounted}) f
       left join bus.subscriptions s on s.id = f.subscription_id group by 1 order by 2 desc, 1 limit 100`,
    )
    if (rows.length === 0) return []
    return [
      found(
        'dead-letters-waiting',
        `${total(rows)} dead letters wait to be redriven or discarded: ${namesOf(rows.map(({ name }) => name))}. Their events are not delivered until then`,
        'Mend the cause, then: npx bossbus dead-letters redrive, or give them up: npx bossbus dead-letters discard',
        { subscriptions: rows, count: sum(rows) },
      ),
    ]
  },
}

function sum(rows: readonly Counted[]): number {
  return rows.reduce((count, row) => count + row.count, 0)
}

function total(rows: readonly Counted[]): string {
  const count = sum(rows)
  return count >= maxCounted ? `${count} or more` : `${count}`
}
