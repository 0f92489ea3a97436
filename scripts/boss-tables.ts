import { getConstructionPlans } from 'pg-boss'

/** The folder of the statements on tables of pg-boss. */
export const bossTablesFolder = 'src/delivery/jobs/'

const created = getConstructionPlans('x').matchAll(/create table x\.(\w+)/gi)
const tables = new Set(Array.from(created, ([, name]) => name))

/**
 * What TypeScript code names in the schema of pg-boss: its tables, types and functions, and the partitions that `format` fills in
 * (`%I`). The schema is written out, or inserted from a variable with any name.
 */
export function bossTablesIn(source: string): string[] {
  const code = source.replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, '')
  const name = String.raw`(%(?:\d\$)?I\b|\w+)`
  const table = String.raw`(%(?:\d\$)?I\b|(?:${[...tables].join('|')})\b)`
  const patterns = [
    // pgboss.job, ${database.bossSchema}.job
    String.raw`(?:\bpgboss|\$\{[^{}]*schema[^{}]*\})"?\.${name}`,
    // ${anything}.job, '.job'
    String.raw`(?:\}|['"\`])"?\.${table}`,
  ]
  return patterns.flatMap((pattern) =>
    [...code.matchAll(new RegExp(pattern, 'gi'))].map(([, found]) => found ?? ''),
  )
}
