import { someOf } from '../../health/finding.ts'
import { found, sqlRemedy } from '../check/finding.ts'
import type { Check } from '../check/check.ts'
import { loadExpectedObjects } from './expected.ts'

/** Whether row security is on for every table with data of tenants, and for each partition of it. */
export const rowSecurityCheck: Check = {
  name: 'row security of the tables',
  needs: 'same bus',
  async run({ read }) {
    const expected = new Set(Object.keys((await loadExpectedObjects())['row security']))
    const rows = await read<{ name: string; top: string }>(
      `select c.oid::regclass::text as name, coalesce(p.relname, c.relname)::text as top
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       left join pg_inherits i on i.inhrelid = c.oid and c.relispartition left join pg_class p on p.oid = i.inhparent
       where n.nspname = 'bus' and c.relkind in ('r', 'p') and not c.relrowsecurity
       order by 1`,
    )
    const open = rows.filter(({ top }) => expected.has(top)).map(({ name }) => name)
    if (open.length === 0) return []
    return [
      found(
        'row-security-off',
        `Row security is off for ${someOf(open)}: whoever may read there sees the events of every tenant, bus.tenant(id) too`,
        sqlRemedy(
          'As the owner of the schema',
          open.map((name) => `alter table ${name} enable row level security`),
        ),
        { tables: open.slice(0, 100), count: open.length },
      ),
    ]
  },
}
