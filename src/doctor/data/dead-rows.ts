import { found, sqlRemedy } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Row extends Record<string, unknown> {
  readonly name: string
  readonly dead: number
  readonly live: number
  readonly threshold: number
  readonly last_autovacuum: string | null
}

/** Fewer dead rows do no harm. */
const minDead = 20_000

/** How many times as many dead rows as autovacuum begins with say that it does not keep up. */
const factor = 5

/** A busy outbox has many between two rounds of autovacuum: so long, and so many rounds, none has come to the table. */
const minSeconds = 600
const minRounds = 5

/** Dead rows that autovacuum has not removed although it should have. */
export const deadRowsCheck: Check = {
  name: 'dead rows',
  needs: 'bus',
  async run({ read, database }) {
    const rows = await read<Row>(
      `select t.name, t.dead, t.live, t.threshold, t.last_autovacuum
       from (
         select c.oid::regclass::text as name, s.n_dead_tup::float8 as dead, s.n_live_tup::float8 as live,
           coalesce(o.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
             + coalesce(o.scale_factor, current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(c.reltuples, 0) as threshold,
           s.last_autovacuum::text as last_autovacuum, greatest(s.last_vacuum, s.last_autovacuum) as last_vacuum
         from pg_stat_all_tables s join pg_class c on c.oid = s.relid
         cross join lateral (
           select max(split_part(e, '=', 2)::float8) filter (where e like 'autovacuum\\_vacuum\\_threshold=%') as threshold,
             max(split_part(e, '=', 2)::float8) filter (where e like 'autovacuum\\_vacuum\\_scale\\_factor=%') as scale_factor
           from unnest(c.reloptions) as r (e) where e ~ '^autovacuum_vacuum_(threshold|scale_factor)=') o
         where s.schemaname in ('bus', '${database.bossSchemaName}')
       ) t
       where t.dead > ${minDead} and t.dead > ${factor} * t.threshold
         and (t.last_vacuum is null or t.last_vacuum < clock_timestamp() - make_interval(secs => greatest(${minSeconds},
           ${minRounds} * (select n.setting::float8 from pg_settings n where n.name = 'autovacuum_naptime'))))
       order by t.dead desc limit 100`,
    )
    const [worst] = rows
    if (worst === undefined) return []
    return [
      found(
        'dead-rows',
        `${worst.name} holds ${worst.dead} dead rows for ${worst.live} live ones${rows.length > 1 ? `, and ${rows.length - 1} more tables are like it` : ''}: claims and fetches read past them, and get slower`,
        `End what keeps vacuum from them (findings on old transactions and slots). ${sqlRemedy(
          'Then',
          rows.map(({ name }) => `vacuum (analyze) ${name}`),
        )}`,
        {
          tables: rows.map(({ last_autovacuum: lastAutovacuumAt, ...row }) => ({ ...row, lastAutovacuumAt })),
        },
      ),
    ]
  },
}
