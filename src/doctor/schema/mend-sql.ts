import { quoteName } from '../check/finding.ts'
import { partOf, tableOf, type Difference } from './differences.ts'
import type { ShippedDefinitions } from './shipped-definitions.ts'

/** The statements that make an object as the migrations made it. Undefined if there are none: what was in it is lost. */
export function mendSql(difference: Difference, shipped: ShippedDefinitions): string | undefined {
  const { kind, name, expected, actual } = difference
  const table = `bus.${quoteName(tableOf(difference) ?? '')}`
  const part = quoteName(partOf(name))
  switch (kind) {
    case 'function':
      return functionSql(difference, shipped)
    case 'view':
      return viewSql(difference, shipped)
    case 'column':
      return columnSql(difference, table, part)
    case 'constraint':
      return statements([
        actual === undefined ? undefined : `alter table ${table} drop constraint ${part}`,
        expected === undefined ? undefined : `alter table ${table} add constraint ${part} ${expected}`,
      ])
    case 'index':
      return statements([
        actual === undefined ? undefined : `drop index bus.${part}`,
        expected === undefined ? undefined : indexSql(expected),
      ])
    case 'trigger':
      return triggerSql(difference, table, part)
    case 'rule':
      return `drop rule ${part} on ${table}`
    case 'policy':
      return statements([
        actual === undefined ? undefined : `drop policy ${part} on ${table}`,
        expected === undefined ? undefined : `create policy ${part} on ${table} ${expected}`,
      ])
    case 'row security':
      return expected === undefined
        ? undefined
        : `alter table bus.${quoteName(name)} enable row level security`
    case 'storage':
      return storageSql(difference)
    default:
      return undefined
  }
}

const dropView = 'drop view'

/** Whether a statement of {@link mendSql} makes a function or a view anew, so that it has no privileges. */
export function isMadeAnew({ kind, actual }: Difference, sql: string | undefined): boolean {
  return (
    (kind === 'function' || kind === 'view') && (actual === undefined || sql?.startsWith(dropView) === true)
  )
}

function statements(list: readonly (string | undefined)[]): string {
  return list.filter((statement) => statement !== undefined).join('; ')
}

/** Existing partitions get it too. Building it beside writes is possible only for a table that is not partitioned. */
function indexSql(definition: string): string {
  return definition.includes(' ON ONLY ')
    ? definition.replace(' ON ONLY ', ' ON ')
    : definition.replace(/^CREATE (UNIQUE )?INDEX /, 'CREATE $1INDEX CONCURRENTLY ')
}

/** A new function may be called by everybody, unless that is taken back; bus.migrate() grants what the roles may call. */
function functionSql(
  { name, expected, actual }: Difference,
  shipped: ShippedDefinitions,
): string | undefined {
  if (expected === undefined) return undefined
  const sql = shipped.functionSql(name, expected)
  if (sql === undefined || actual !== undefined) return sql
  return `${sql.replace(/;\s*$/, '')}; revoke execute on function bus.${name} from public`
}

/** A view whose columns differ cannot be replaced. What is made anew has no privileges, and no trigger. */
function viewSql({ name, expected, actual }: Difference, shipped: ShippedDefinitions): string | undefined {
  const sql = shipped.viewSql(name)
  if (sql === undefined || actual === undefined || columnsIn(actual) === columnsIn(expected)) return sql
  return `${dropView} bus.${quoteName(name)}; ${sql}`
}

function columnsIn(definition = ''): string | undefined {
  return /\(.*?\)(?= with \(| body )/.exec(definition)?.[0]
}

function triggerSql({ expected, actual }: Difference, table: string, part: string): string {
  if (expected !== undefined && actual?.startsWith(expected) === true)
    return `alter table ${table} enable trigger ${part}`
  return statements([actual === undefined ? undefined : `drop trigger ${part} on ${table}`, expected])
}

function storageSql({ name, expected, actual }: Difference): string {
  const table = `bus.${quoteName(name)}`
  const nameOf = (option: string): string => option.split('=')[0] ?? ''
  const wanted = optionsIn(expected)
  const names = new Set(wanted.map(nameOf))
  const surplus = optionsIn(actual)
    .map(nameOf)
    .filter((option) => !names.has(option))
  return statements([
    surplus.length === 0 ? undefined : `alter table ${table} reset (${surplus.join(', ')})`,
    wanted.length === 0 ? undefined : `alter table ${table} set (${wanted.join(', ')})`,
  ])
}

function optionsIn(definition: string | undefined): readonly string[] {
  return definition === undefined || definition === '' ? [] : definition.split(', ')
}

interface Column {
  readonly type: string
  readonly isRequired: boolean
  readonly generated: string | undefined
  readonly defaultValue: string | undefined
}

function readColumn(definition: string): Column {
  const [, type = '', required, generated, , defaultValue] =
    /^(.*?)( not null)?( generated .*?)?( default (.*))?$/s.exec(definition) ?? []
  return { type, isRequired: required !== undefined, generated, defaultValue }
}

function columnSql({ expected, actual }: Difference, table: string, part: string): string | undefined {
  if (expected === undefined) return `alter table ${table} drop column ${part}`
  if (actual === undefined) return `alter table ${table} add column ${part} ${expected}`
  const [wanted, found] = [readColumn(expected), readColumn(actual)]
  if (wanted.generated !== found.generated) return undefined
  const change = (what: string): string => `alter table ${table} alter column ${part} ${what}`
  return statements([
    wanted.type === found.type ? undefined : change(`type ${wanted.type} using ${part}::${wanted.type}`),
    wanted.defaultValue === found.defaultValue
      ? undefined
      : change(wanted.defaultValue === undefined ? 'drop default' : `set default ${wanted.defaultValue}`),
    wanted.isRequired === found.isRequired
      ? undefined
      : change(wanted.isRequired ? 'set not null' : 'drop not null'),
  ])
}
