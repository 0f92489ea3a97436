import { PgBoss, type SchemaDriftReport } from 'pg-boss'
import type pg from 'pg'
import type { Database } from '../../database/database.ts'

/** Runs a statement without parameters, within a time limit. */
type Read = <R extends pg.QueryResultRow>(statement: string) => Promise<readonly R[]>

/** An object of pg-boss's schema that is not as pg-boss made it. */
interface BossDifference {
  readonly name: string
  readonly problem: string
  /** The statement that mends it. Undefined if pg-boss knows none. */
  readonly sql: string | undefined
}

type Boss = Pick<Database, 'bossSchema' | 'query'>

/** pg-boss that only reads its catalogue. It has no timers, and need not be stopped. */
function readingBoss(
  { bossSchema, query }: Boss,
  read: Read,
): { boss: PgBoss; failures: readonly unknown[] } {
  const failures: unknown[] = []
  const boss = new PgBoss({
    db: {
      async executeSql(text: string, values: unknown[] = []) {
        try {
          return values.length === 0 ? { rows: [...(await read(text))] } : await query(text, values)
        } catch (error) {
          failures.push(error)
          throw error
        }
      },
    },
    schema: bossSchema,
    migrate: false,
    openTelemetry: { enabled: false },
  })
  return { boss, failures }
}

/** pg-boss's own comparison of its schema. Indexes that somebody has added do no harm, and invalid ones are another matter. */
export async function readBossDrift(database: Boss, read: Read): Promise<readonly BossDifference[]> {
  const { boss, failures } = readingBoss(database, read)
  const report = await boss.detectSchemaDrift()
  // It leaves out what it could not read, and says nothing of it.
  if (failures.length > 0) throw failures[0]
  return differencesIn(report)
}

function differencesIn(report: SchemaDriftReport): readonly BossDifference[] {
  const isMissing = 'is missing'
  return [
    ...report.missingTables.map((name) => ({ name: `table ${name}`, problem: isMissing, sql: undefined })),
    ...report.missing.map(({ name, definition }) => ({
      name: `index ${name}`,
      problem: isMissing,
      sql: definition,
    })),
    ...report.mismatched.map(({ name, differs }) => ({
      ...{ name: `index ${name}`, problem: `differs in ${differs.join(' and ')}`, sql: undefined },
    })),
    ...report.missingFunctions.map(({ name, definition }) => ({
      ...{ name: `function ${name}`, problem: isMissing, sql: definition },
    })),
    ...report.mismatchedFunctions.map(({ name, definition }) => ({
      ...{ name: `function ${name}`, problem: 'differs', sql: replacing(definition) },
    })),
    ...report.columnDrift.flatMap(({ table, missingColumns, unexpectedColumns, ...changed }) => [
      ...missingColumns.map((column) => ({
        name: `column ${table}.${column}`,
        problem: isMissing,
        sql: undefined,
      })),
      ...unexpectedColumns.map((column) => ({
        name: `column ${table}.${column}`,
        problem: 'was added',
        sql: undefined,
      })),
      ...[...changed.defaultMismatches, ...changed.typeMismatches, ...changed.nullabilityMismatches].map(
        ({ column }) => ({ name: `column ${table}.${column}`, problem: 'differs', sql: undefined }),
      ),
    ]),
    ...report.constraintDrift.flatMap(({ table, missingConstraints, unexpectedConstraints }) => [
      ...missingConstraints.map((each) => ({
        name: `constraint ${each} of ${table}`,
        problem: isMissing,
        sql: undefined,
      })),
      ...unexpectedConstraints.map((each) => ({
        name: `constraint ${each} of ${table}`,
        problem: 'was added',
        sql: undefined,
      })),
    ]),
    ...(report.enumDrift === null
      ? []
      : [{ name: `type ${report.enumDrift.name}`, problem: 'differs', sql: undefined }]),
  ]
}

function replacing(definition: string): string {
  return definition.trim().replace(/^create (?:or replace )?function/i, 'create or replace function')
}

/** A statement that pg-boss runs in the background after an update of its schema. */
interface Build {
  readonly name: string
  readonly table: string
  readonly status: string
  readonly command: string
  readonly error: string | undefined
}

/** What pg-boss has still to build, or could not: of the last hundred. */
export async function readBuilds(database: Boss, read: Read): Promise<readonly Build[]> {
  const { boss } = readingBoss(database, read)
  const entries = await boss.getBamEntries({ limit: 100 })
  return entries
    .filter(({ status }) => status !== 'completed')
    .map(({ name, table, status, command, error }) => ({
      name,
      table,
      status,
      command,
      error: error?.slice(0, 300),
    }))
}

/** The statements that rebuild the indexes of jobs that have grown far beyond what is in them. */
export async function readReindexCommands(database: Boss, read: Read): Promise<readonly string[]> {
  const { boss, failures } = readingBoss(database, read)
  const commands = await boss.getReindexCommands()
  if (failures.length > 0) throw failures[0]
  return commands
}
