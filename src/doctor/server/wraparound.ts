import { found, quoteName } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Row extends Record<string, unknown> {
  readonly name: string
  readonly age: number
  readonly freeze_age: number
  readonly kind: 'transaction' | 'multixact'
}

/** The server takes no more writes at 2^31 less three million. */
const lastAge = 2_143_483_647

/**
 * Whether vacuum does not move an age on: it is twice the age at which the server freezes by itself, or, where that age is set high, half way from
 * there to the last one.
 *
 * @param freezeAge - `autovacuum_freeze_max_age`
 */
export function isStuckAge(age: number, freezeAge: number): boolean {
  return age > Math.min(2 * freezeAge, (freezeAge + lastAge) / 2)
}

/** How far the numbers of transactions are from their end. All databases of the server count: it stops for each of them. */
export const wraparoundCheck: Check = {
  name: 'transaction ids',
  needs: 'supported server',
  async run({ read }) {
    const rows = await read<Row>(
      `select d.datname as name, a.age, a.freeze_age, a.kind
       from pg_database d cross join lateral (values
         (age(d.datfrozenxid)::float8, current_setting('autovacuum_freeze_max_age')::float8, 'transaction'),
         (mxid_age(d.datminmxid)::float8, current_setting('autovacuum_multixact_freeze_max_age')::float8, 'multixact')) as a (age, freeze_age, kind)
       where a.age > a.freeze_age
       order by a.age desc limit 1000`,
    )
    const stuck = rows.filter((row) => isStuckAge(row.age, row.freeze_age)).slice(0, 10)
    const [worst] = stuck
    if (worst === undefined) return []
    return [
      found(
        'wraparound-near',
        `The oldest ${worst.kind} id of the database \`${worst.name}\` is ${worst.age} old, and vacuum does not move it on: at ${lastAge} the server takes no more events`,
        `End what holds it back (findings on old transactions and slots), then, in the database ${quoteName(worst.name)}: vacuum (freeze, verbose);`,
        { databases: stuck },
      ),
    ]
  },
}
