import { found } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'

interface Sequence extends Record<string, unknown> {
  readonly sequence: string
  readonly table_name: string
  readonly attribute: string
}

interface Row extends Record<string, unknown> {
  readonly name: string
  readonly next: string
  readonly highest: string
}

/** The highest value in use, where it is not the maximum of the column: as in bus.repair_sequences(), which raises what is behind. */
const highestOf: Readonly<Record<string, string>> = {
  'bus.outbox.position': `greatest(
    (select max(o.position) from bus.outbox o where o.position < 0) + 4611686018427387904,
    (select max(o.position) from bus.outbox o where o.position between 0 and 2305843009213693951),
    (select max(o.position) from bus.outbox o where o.position >= 2305843009213693952 and o.position < 4611686018427387904) - 2305843009213693952,
    (select max(o.position) from bus.outbox o where o.position >= 4611686018427387904) - 4611686018427387904)`,
  'bus.ordered_events.seq': `greatest((select max(e.seq) from bus.ordered_events e), (select max(greatest(k.done_seq, k.singly_through_seq)) from bus.ordered_keys k))`,
  'bus.subscriptions.id': `greatest((select max(s.id) from bus.subscriptions s), (select max(r.subscription_id) from bus.receipts r),
    (select max(b.subscription_id) from bus.receipt_batches b), (select max(k.subscription_id) from bus.ordered_keys k))`,
}

/** Sequences that would give a number again that is in use: a copy of the database came without their values. */
export const sequencesCheck: Check = {
  name: 'sequences',
  needs: 'bus',
  async run(context) {
    const rows = await readBehind(context)
    if (rows.length === 0) return []
    return [
      found(
        'sequences-behind',
        `Sequences are behind their tables (${rows.map(({ name }) => name).join(', ')}), as in a copy without their values: positions and ids would be given twice, so events are refused or delivered out of order`,
        'select * from bus.repair_sequences(); each start of a bus, and npx bossbus migrate, do it too.',
        { sequences: rows },
      ),
    ]
  },
}

async function readBehind({ read }: CheckContext): Promise<readonly Row[]> {
  const sequences = await read<Sequence>(
    `select s.oid::regclass::text as sequence, d.refobjid::regclass::text as table_name, a.attname::text as attribute
     from pg_class s
     join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
     join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
     where s.relnamespace = 'bus'::regnamespace and s.relkind = 'S'
     order by 1`,
  )
  if (sequences.length === 0) return []
  // The snapshot of the statement is older than what it reads of a sequence: an event that is published meanwhile does no harm.
  const each = sequences.map(({ sequence, table_name: table, attribute }) => {
    const highest = highestOf[`${table}.${attribute}`] ?? `(select max("${attribute}") from ${table})`
    return `select '${sequence}' as name, case when q.is_called then q.last_value + 1 else q.last_value end as next, ${highest} as highest from ${sequence} q`
  })
  return read<Row>(
    `select s.name, s.next::text, s.highest::text from (${each.join(' union all ')}) s where s.highest >= s.next`,
  )
}
