import { createHash, randomUUID } from 'node:crypto'
import pg from 'pg'
import { hashOf, loadShippedSql } from '../migrations/shipped-sql.ts'
import { valueTypes } from '../database/session-settings.ts'
import { asAdmin, createDatabase, databaseUrl, dropDatabase, migrate } from './databases.ts'

/** A database for one test. */
export interface TestDatabase {
  readonly url: string
  /** Runs a statement on a separate connection from the bus, and returns its rows. */
  readonly query: (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>
  /** Closes the connection, and drops the database if it was created here. Its other users are disconnected. */
  readonly drop: () => Promise<void>
}

/**
 * Clones a database: the one named, or one that has the schemas of the bus and of pg-boss, up to date. The latter is created once for
 * each version of the schema and stays on the server as `bossbus_template_<hash>`: cloning takes a fraction of the time of a migration.
 *
 * @param adminUrl - a database on the server; the role must be allowed to create databases
 */
export async function createTestDatabase(adminUrl: string, template?: string): Promise<TestDatabase> {
  const name = `bossbus_test_${randomUUID().replaceAll('-', '')}`
  const url = await createDatabase(adminUrl, name, template ?? (await templateOf(adminUrl)))
  return open(url, async () => dropDatabase(adminUrl, name))
}

/** An existing database, which is not dropped. */
export function openTestDatabase(url: string): TestDatabase {
  return open(url, async () => {})
}

function open(url: string, drop: () => Promise<void>): TestDatabase {
  const pool = new pg.Pool({
    connectionString: url,
    max: 3,
    application_name: 'testing-bossbus',
    types: valueTypes,
    allowExitOnIdle: true,
  })
  pool.on('error', () => {})
  return {
    url,
    query: async (text, values = []) => (await pool.query<Record<string, unknown>>(text, [...values])).rows,
    async drop() {
      await pool.end()
      await drop()
    },
  }
}

/** The number of a lock in the server's first database: its processes create and migrate the template one at a time. */
const templateLock = 1_651_864_321

/** By the URL of the server: what this process has found there or made, and brought up to date. */
const templates = new Map<string, Promise<string>>()

/** The name of a database with the schema of this version that has no connections. */
async function templateOf(adminUrl: string): Promise<string> {
  const template = templates.get(adminUrl) ?? makeTemplate(adminUrl)
  templates.set(adminUrl, template)
  return template.catch((error: unknown) => {
    templates.delete(adminUrl)
    throw error
  })
}

async function makeTemplate(adminUrl: string): Promise<string> {
  const template = `bossbus_template_${await schemaHash()}`
  await asAdmin(adminUrl, async (admin) => {
    await admin.query('select pg_advisory_lock($1)', [templateLock])
    const { rows } = await admin.query('select from pg_database where datname = $1', [template])
    // One that is there may predate an update of pg-boss, and have no partitions of today.
    if (rows.length > 0) await migrate(databaseUrl(adminUrl, template))
    else await createTemplate(admin, adminUrl, template)
  })
  return template
}

/**
 * Advisory locks hold in one database only, so processes that connect through different ones may create it at once: each makes a draft,
 * and the first renames its own.
 */
async function createTemplate(admin: pg.Client, adminUrl: string, template: string): Promise<void> {
  const draft = `${template}_${randomUUID().slice(0, 8)}`
  await admin.query(`create database ${draft} template template0`)
  try {
    await migrate(databaseUrl(adminUrl, draft))
    await admin.query(`alter database ${draft} rename to ${template}`)
  } catch (error) {
    await admin.query(`drop database if exists ${draft} with (force)`)
    // `duplicate_database`, or `unique_violation` where the other one has not committed yet: its template is as good.
    if (!['42P04', '23505'].includes((error as { code?: string }).code ?? '')) throw error
  }
}

async function schemaHash(): Promise<string> {
  const { migrations } = await loadShippedSql()
  const hash = createHash('sha256')
  for (const migration of migrations) hash.update(hashOf(migration))
  return hash.digest('hex').slice(0, 16)
}

export function isPostgresUrl(value: unknown): value is string {
  return typeof value === 'string' && /^postgres(?:ql)?:\/\//.test(value)
}
