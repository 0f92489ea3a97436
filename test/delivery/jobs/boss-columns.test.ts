import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { bossTablesFolder, bossTablesIn } from '../../../scripts/boss-tables.ts'
import { bossColumns } from '../../../src/delivery/jobs/boss-columns.ts'
import { createBus } from '../../../src/index.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'

type Table = keyof typeof bossColumns

const projectFolder = fileURLToPath(new URL('../../..', import.meta.url))

/** The template literals of a source file; what stands in `${…}` is left in their text, but for literals inside, which come by themselves. */
function templatesOf(source: string): string[] {
  const found: string[] = []
  // Innermost first: each is replaced by nothing, so that the one around it can be read.
  const innermost = /`(?:[^`\\$]|\\[^]|\$(?!\{)|\$\{[^`{}]*\})*`/
  let rest = source.replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, '')
  for (let match = innermost.exec(rest); match !== null; match = innermost.exec(rest)) {
    found.push(match[0])
    rest = rest.slice(0, match.index) + rest.slice(match.index + match[0].length)
  }
  return found
}

interface BossSql {
  readonly where: string
  readonly tables: ReadonlySet<Table>
  /** The words of the statements, without their string constants. */
  readonly words: ReadonlySet<string>
}

/** Which tables of pg-boss a text names. Tables that are named by `%I` are those of jobs. The type of a state is no table. */
function tablesIn(text: string): ReadonlySet<Table> {
  const named = bossTablesIn(text).map((name) => (name.endsWith('I') ? 'job' : name))
  return new Set(named.filter((name) => name !== 'job_state') as Table[])
}

const wordsIn = (text: string): ReadonlySet<string> =>
  new Set(text.replaceAll(/'[^'\n]*'/g, '').match(/\b[a-z_]+\b/g))

/** The SQL of each source file, and of each statement of `drizzle/`, that names a table of pg-boss. */
async function readBossSql(): Promise<BossSql[]> {
  const names = await readdir(`${projectFolder}src`, { recursive: true })
  const sources = names.filter((name) => name.endsWith('.ts')).toSorted()
  const ofSources = await Promise.all(
    sources.map(async (name) => {
      const templates = templatesOf(await readFile(`${projectFolder}src/${name}`, 'utf8'))
      const sql = templates
        .filter((text) => /\b(?:select|update|delete|insert|from|where)\b/.test(text))
        .join('\n')
      return { where: name, tables: tablesIn(sql), words: wordsIn(sql) }
    }),
  )
  const migrations = (await readdir(`${projectFolder}drizzle`)).filter((name) => /^\d{4}_.*\.sql$/.test(name))
  const ofMigrations = await Promise.all(
    migrations.map(async (name) => {
      const text = await readFile(`${projectFolder}drizzle/${name}`, 'utf8')
      return text.split('--> statement-breakpoint').map((statement) => {
        const sql = statement.replaceAll(/--.*$/gm, '')
        return { where: `${name}: ${sql.trim().slice(0, 60)}`, tables: tablesIn(sql), words: wordsIn(sql) }
      })
    }),
  )
  return [...ofSources, ...ofMigrations.flat()].filter(({ tables }) => tables.size > 0)
}

type Columns = Readonly<Record<Table, readonly string[]>>

const listed: Columns = {
  version: Object.keys(bossColumns.version),
  queue: Object.keys(bossColumns.queue),
  job: Object.keys(bossColumns.job),
}

async function readBossColumns({ rows }: TestDatabase): Promise<Columns> {
  const read = async (table: Table): Promise<string[]> => {
    const found = await rows(
      `select attname from pg_attribute where attrelid = 'pgboss.${table}'::regclass and attnum > 0 and not attisdropped`,
    )
    return found.map(({ attname }) => String(attname))
  }
  return { version: await read('version'), queue: await read('queue'), job: await read('job') }
}

/**
 * Columns of pg-boss that statements name and the list does not have. A statement that names several tables is compared with the
 * columns of all of them, as the words do not tell whose a column is.
 */
function findUnlisted(statements: readonly BossSql[], all: Columns): string[] {
  return statements.flatMap(({ where, tables, words }) => {
    const known = new Set([...tables].flatMap((table) => listed[table]))
    const columns = new Set([...tables].flatMap((table) => all[table]))
    return [...columns]
      .filter((column) => words.has(column) && !known.has(column))
      .map((column) => `${where}: ${column}`)
  })
}

test('every column of pg-boss that a statement names is listed', async () => {
  const all = await readBossColumns(await createTestDatabase())
  const statements = await readBossSql()
  expect(findUnlisted(statements, all)).toEqual([])
  // What it looks at: files of several folders, and functions of the schema.
  const places = statements.map(({ where }) => where)
  for (const place of [/^delivery\/jobs\/[^/]+$/, /^delivery\/jobs\/queue-state\//, /bus\.event_deliveries/])
    expect(places.some((where) => place.test(where))).toBe(true)
  // And what it finds.
  const source =
    "query(`update ${database.bossSchema}.job set keep_until = now(), data = $1 where policy = 'state'`)"
  const sql = templatesOf(source).join('\n')
  const added = { where: 'added', tables: tablesIn(sql), words: wordsIn(sql) }
  expect(findUnlisted([added], all)).toEqual(['added: keep_until', 'added: policy'])
})

test('every column that is listed is named by a statement', async () => {
  const statements = await readBossSql()
  for (const table of ['version', 'queue', 'job'] as const) {
    const named = listed[table].filter((column) =>
      statements.some(({ tables, words }) => tables.has(table) && words.has(column)),
    )
    expect(named).toEqual(listed[table])
  }
})

test('the statements name no other tables of pg-boss than those whose columns are listed', async () => {
  const named = new Set((await readBossSql()).flatMap(({ tables }) => [...tables]))
  expect([...named].toSorted()).toEqual(Object.keys(listed).toSorted())
})

test('only src/delivery/jobs and the migrations name tables of pg-boss', async () => {
  const names = await readdir(`${projectFolder}src`, { recursive: true })
  const sources = names.filter((name) => name.endsWith('.ts')).map((name) => `src/${name}`)
  const naming: string[] = []
  for (const file of sources)
    if (bossTablesIn(await readFile(`${projectFolder}${file}`, 'utf8')).length > 0) naming.push(file)
  expect(naming.filter((file) => !file.startsWith(bossTablesFolder))).toEqual([])
  // And all of them are compared with the list.
  const compared = (await readBossSql()).map(({ where }) => `src/${where}`)
  expect(naming.filter((file) => !compared.includes(file))).toEqual([])
  expect(naming.length).toBeGreaterThan(10)
})

test.each([
  ['a variable of the schema', 'query(`delete from ${database.bossSchema}.queue`)', 'queue'],
  ['a variable of another name', 'query(`select from ${where}.job_common`)', 'job_common'],
  ['a quoted schema', 'query(`select from "${schema}".job`)', 'job'],
  ['the schema itself', "query('select state from pgboss.job')", 'job'],
  ['a type', 'query(`select $1::${bossSchema}.job_state`)', 'job_state'],
  ['a partition', 'format(`select from ${this.#bossSchema}.%1$I`)', '%1$I'],
  ['a string that is appended', "query('select from ' + schema + '.job')", 'job'],
])('a table is found that is named by %s', (_, source, table) => {
  expect(bossTablesIn(source)).toContain(table)
})

test('tables of the bus, names of queues and comments are not taken for tables of pg-boss', () => {
  const source =
    '/**\n * `pgboss.job`\n */\n// pgboss.queue\nconst dead = `bus.${name}.dead`\nquery(`select from bus.jobs, ${job.version}`)'
  expect(bossTablesIn(source)).toEqual([])
})

test.each([
  [
    'a column is gone',
    'alter table pgboss.job rename column heartbeat_on to beaten_on',
    'job.heartbeat_on timestamptz',
  ],
  [
    'a column has another type',
    'alter table pgboss.queue alter column deletion_seconds type bigint',
    'queue.deletion_seconds int4',
  ],
  [
    'the states have other names or another order',
    `alter type pgboss.job_state rename value 'retry' to 'waiting'`,
    'job_state created < retry < active < completed < cancelled < failed',
  ],
])('a bus does not start where %s, and says which', async (_, change, missing) => {
  const { url, rows } = await createTestDatabase()
  await testBus(url).start()
  await rows(change)
  const error: unknown = await testBus(url)
    .start()
    .catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({
    name: 'DatabaseError',
    code: 'BUS_BOSS_SCHEMA_UNSUPPORTED',
    retryable: false,
  })
  expect((error as Error).message).toContain(`bossbus use: ${missing}. `)
})

test('several columns that are missing are all named, in another schema too', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const inOther = () => {
    const bus = createBus({ database: url, events: {}, source: 'test', bossSchema: 'Jobs of the bus' })
    onTestFinished(async () => bus.stop({ graceMs: 1000 }))
    return bus
  }
  await inOther().migrate()
  await inOther().start()
  await rows('alter table "Jobs of the bus".job rename column singleton_key to key_of_one')
  await rows('alter table "Jobs of the bus".queue rename column monitor_on to watched_on')
  await expect(inOther().start()).rejects.toMatchObject({
    code: 'BUS_BOSS_SCHEMA_UNSUPPORTED',
    message: expect.stringContaining(
      'pg-boss in the schema `Jobs of the bus` lacks what the statements of bossbus use: queue.monitor_on timestamptz, job.singleton_key text.',
    ) as string,
  })
})
