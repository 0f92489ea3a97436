import { counted } from '../../foundation/counted.ts'
import { namesOf } from '../../health/finding.ts'
import { found, type DoctorCode } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** Counts stop here. */
const maxCounted = 10_000

interface Counted extends Record<string, unknown> {
  readonly name: string
  readonly count: number
}

interface Backlog {
  readonly name: string
  readonly code: DoctorCode
  /** A row for each thing that waits, with its `subscription_id`. */
  readonly rows: string
  /** One of them, for what it waits, and what follows the names of the subscriptions. */
  readonly message: readonly [noun: string, what: string, end: string]
  readonly remedy: string
}

/** What waits for a person, by subscription. */
function backlogCheck({ name, code, rows: source, message: [noun, what, end], remedy }: Backlog): Check {
  return {
    name,
    needs: 'bus',
    async run({ read }) {
      const rows = await read<Counted>(
        `select coalesce(s.name, b.subscription_id::text) as name, count(*)::int as count
         from (${source} limit ${maxCounted}) b
         left join bus.subscriptions s on s.id = b.subscription_id group by 1 order by 2 desc, 1 limit 100`,
      )
      if (rows.length === 0) return []
      const count = rows.reduce((sum, row) => sum + row.count, 0)
      const total = `${counted(count, noun)}${count >= maxCounted ? ' or more' : ''}`
      const names = namesOf(rows.map((row) => row.name))
      return [
        found(code, `${total} ${count === 1 ? 'waits' : 'wait'} ${what}: ${names}${end}`, remedy, {
          subscriptions: rows,
          count,
        }),
      ]
    },
  }
}

/** Dead letters that nobody has redriven or discarded. */
export const deadLettersCheck = backlogCheck({
  name: 'dead letters',
  code: 'dead-letters-waiting',
  rows: `select subscription_id from bus.failing where state <> 'retrying' and subscription_id > 0 order by failed_at desc`,
  message: ['dead letter', 'to be redriven or discarded', '. Their events are not delivered until then'],
  remedy:
    'Mend the cause, then: npx bossbus dead-letters redrive, or give them up: npx bossbus dead-letters discard',
})
