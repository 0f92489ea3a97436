import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { withFaultHook, type FaultPoint } from '../../src/foundation/fault-points.ts'
import { archiveToFolder, restoreArchive, type ArchiveManifest, type ArchiveStore } from '../../src/index.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { fillMonth, logTables, makeMonth, monthAgo, partitionsOf } from '../support/retention.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

const month = monthAgo(4)
const manifestName = `${month.name}/manifest.json`

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-archive-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  return folder
}

async function withMonth(count = 400): Promise<TestDatabase> {
  const database = await createTestDatabase({ max: 6 })
  await makeMonth(database, month)
  await fillMonth(database, month, count)
  return database
}

const archiving = ({ url }: { readonly url: string }, archive: ArchiveStore): PaymentBus =>
  testBus(url, { retention: { logDays: 60, archive } })

/** Every row of a table as PostgreSQL writes it, and its JSON columns as texts. */
async function textsOf({ rows }: TestDatabase, table: string): Promise<string[]> {
  const found = await rows(`select t::text as text from ${table} t order by 1`)
  return found.map(({ text }) => String(text))
}

async function allTexts(database: TestDatabase): Promise<Record<string, string[]>> {
  const texts = await Promise.all(
    logTables.map(async (table) => [table, await textsOf(database, `bus.${table}_${month.name}`)] as const),
  )
  return Object.fromEntries(texts)
}

/** Restores all tables of the archive, and gives their rows. */
async function restored(
  database: TestDatabase,
  archive: ArchiveStore,
  schema: string,
): Promise<Record<string, string[]>> {
  const { client } = await openSession(database)
  await database.rows(`create schema ${schema}`)
  for (const table of logTables)
    await restoreArchive({
      client: { query: async (text, values) => client.query(text, values) },
      archive,
      manifest: manifestName,
      table,
      into: `${schema}.${table}`,
    })
  const texts = await Promise.all(
    logTables.map(async (table) => [table, await textsOf(database, `${schema}.${table}`)] as const),
  )
  return Object.fromEntries(texts)
}

const manifestIn = async (folder: string): Promise<ArchiveManifest> =>
  JSON.parse(await readFile(join(folder, manifestName), 'utf8')) as ArchiveManifest

test.each(['ndjson', 'parquet'] as const)(
  'what was dropped is in the archive, and is restored from %s byte for byte, by a worker',
  async (format) => {
    const database = await withMonth()
    const { rows } = database
    await rows(
      `update bus.events_${month.name} set erased_at = now(), payload = 'null', metadata = '{}' where tenant_id = 'tenant-1'`,
    )
    await rows(
      `update bus.attempts_${month.name} set duration_ms = 'NaN', error_code = E'\\t"\\u0001' where ('x' || right(event_id::text, 2))::bit(8)::int < 128`,
    )
    const before = await allTexts(database)
    for (const table of logTables) expect(before[table]?.length).toBeGreaterThan(10)
    const folder = await makeFolder()
    const archive = archiveToFolder(folder, { format })
    const login = await createLogin(database, ['bus_worker'])
    const report = await archiving(login, archive).prune({ by: 'ana' })
    expect(report.ranges).toMatchObject([{ range: { name: month.name }, outcome: 'dropped' }])
    expect(await partitionsOf(database, month)).toEqual([])
    expect(await restored(database, archive, 'restored')).toEqual(before)
    const [row] = await rows('select state, name, manifest, service from bus.archives')
    expect(row).toEqual({
      state: 'dropped',
      name: month.name,
      manifest: manifestName,
      service: 'payment-service',
    })
    expect(
      (
        await rows(`select outcome ->> 'archive' as archive from bus.audit where action = 'retention.drop'`)
      )[0],
    ).toEqual({
      archive: month.name,
    })
  },
)

test('the manifest says what is in each file, and its hashes are those of the files', async () => {
  const database = await withMonth()
  await database.rows(
    `update bus.events_${month.name} set erased_at = now(), payload = 'null', metadata = '{}' where tenant_id = 'tenant-1'`,
  )
  const ids = await database.rows(`select id from bus.events_${month.name} order by id`)
  const folder = await makeFolder()
  await archiving(database, archiveToFolder(folder)).prune({ by: 'ana' })
  const manifest = await manifestIn(folder)
  expect(manifest).toMatchObject({
    ...{
      format: 'ndjson',
      version: 1,
      name: month.name,
      schemaVersion: await database.count('select count(*) from bus.migrations'),
    },
    ...{ from: month.from.toISOString(), to: month.to.toISOString() },
  })
  const { events } = manifest.tables
  expect(events).toMatchObject({
    rowCount: 400,
    erasedCount: 80,
    minId: ids[0]?.['id'],
    maxId: ids.at(-1)?.['id'],
  })
  const [file] = events.files
  const bytes = await readFile(join(folder, file?.name ?? ''))
  expect(createHash('sha256').update(bytes).digest('hex')).toBe(file?.sha256)
  expect(bytes.length).toBe(file?.byteCount)
  const text = gunzipSync(bytes).toString()
  expect(createHash('sha256').update(text).digest('hex')).toBe(events.sha256)
  const lines = text.trimEnd().split('\n')
  expect(lines.map((line) => (JSON.parse(line) as { id: string }).id)).toEqual(ids.map(({ id }) => id))
  expect(await readdir(join(folder, month.name, 'events'))).toEqual(['part-00000.ndjson.gz'])
})

test('nothing is dropped if what is read back is not what was written, or the store fails; the state says why', async () => {
  const database = await withMonth()
  const folder = archiveToFolder(await makeFolder())
  const wrong: Record<string, Partial<ArchiveStore>> = {
    'is not what': {
      async read(name) {
        const content = await folder.read(name)
        if (!name.includes('/receipts/')) return content
        content.destroy()
        const { Readable } = await import('node:stream')
        return Readable.from([gzipSync('{}\n')])
      },
    },
    'has not read all': { write: async () => {} },
    'disk is full': {
      async write() {
        throw new Error('the disk is full')
      },
    },
  }
  for (const [reason, part] of Object.entries(wrong)) {
    const bus = archiving(database, { ...folder, ...part })
    await expect(bus.prune({ by: 'ana' })).rejects.toThrow(reason)
    expect((await bus.retention.state()).lastError).toContain(reason)
    expect(await partitionsOf(database, month)).toHaveLength(4)
  }
  const bus = archiving(database, folder)
  expect(await bus.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'dropped' }] })
  expect((await bus.retention.state()).lastError).toBeUndefined()
})

test('once a service archives, a process without an archive drops nothing', async () => {
  const database = await withMonth()
  const archive = archiveToFolder(await makeFolder())
  const bus = archiving(database, archive)
  await bus.start()
  const other = testBus(database.url, { source: 'case-service', retention: { logDays: 60 } })
  await other.start()
  expect(await other.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'elsewhere' }] })
  expect(
    (
      await database.rows(
        `select bus.drop_range(bus.uuid_v7_floor('${month.from.toISOString()}'), bus.uuid_v7_floor('${month.to.toISOString()}'), 'x') as answer`,
      )
    )[0]?.['answer'],
  ).toEqual({ outcome: 'changed' })
  expect(await partitionsOf(database, month)).toHaveLength(4)
  expect(await bus.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'dropped' }] })
})

test('rows that come or change after they were archived are archived again before they are dropped', async () => {
  const database = await withMonth()
  const archive = archiveToFolder(await makeFolder())
  let point: FaultPoint | undefined = 'retention.archived'
  const changes = [
    `update bus.events_${month.name} set payload = '"late"' where id = (select id from bus.events_${month.name} order by id limit 1)`,
    `delete from bus.receipts_${month.name} where event_id = (select event_id from bus.receipts_${month.name} order by event_id limit 1)`,
    `insert into bus.attempts (event_id, subscription_id, attempt, ended_at, succeeded) select event_id, 1, 9, now(), true from bus.receipts_${month.name} limit 1`,
  ]
  const bus = withFaultHook(
    async (reached) => {
      if (reached === point) await database.rows(changes.shift() ?? 'select 1')
    },
    () => archiving(database, archive),
  )
  for (let n = 0; n < 3; n += 1)
    expect(await bus.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'changed' }] })
  point = undefined
  const before = await allTexts(database)
  expect(await bus.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'dropped' }] })
  expect(await restored(database, archive, 'restored')).toEqual(before)
})

const steps: readonly FaultPoint[] = [
  'retention.archive-begun',
  'retention.file-written',
  'retention.archive-verified',
  'retention.archived',
  'retention.dropped',
  'retention.slice-deleted',
]

test.each(steps)(
  'interrupted at %s, the next round ends with the archive complete and the partitions gone',
  async (point) => {
    const database = await withMonth()
    await database.rows(
      `insert into bus.event_keys (tenant_id, kind, key, event_id, created_at) values ('a', 'event_id', 'k', bus.uuid_v7(), now() - interval '1 year')`,
    )
    const before = await allTexts(database)
    const archive = archiveToFolder(await makeFolder())
    const bus = withFaultHook(
      (reached) => {
        if (reached === point) throw new Error('interrupted')
      },
      () => archiving(database, archive),
    )
    await expect(bus.prune({ by: 'ana' })).rejects.toThrow('interrupted')
    await archiving(database, archive).prune({ by: 'ana' })
    expect(await partitionsOf(database, month)).toEqual([])
    expect(await restored(database, archive, 'restored')).toEqual(before)
    expect(await database.rows('select state from bus.archives')).toEqual([{ state: 'dropped' }])
    expect(await database.count(`select count(*) from bus.audit where action = 'retention.drop'`)).toBe(1)
    expect(await database.count('select count(*) from bus.event_keys')).toBe(0)
  },
)

test.each(['ndjson', 'parquet'] as const)(
  'a subject that is erased after it was archived is erased in the %s archive too',
  async (format) => {
    const database = await withMonth()
    const folder = await makeFolder()
    const archive = archiveToFolder(folder, { format })
    const bus = archiving(database, archive)
    await bus.prune({ by: 'ana' })
    const before = await restored(database, archive, 'before')
    const of = `tenant_id = 'tenant-2' and subject = 'customer-22'`
    const erasedCount = await database.count(`select count(*) from before.events where ${of}`)
    expect(erasedCount).toBeGreaterThan(2)
    const subject = { tenantId: 'tenant-2', subject: 'customer-22', by: 'dpo' }
    const erased = await bus.erase(subject)
    expect(erased.archiveFiles[0]).toContain(`${month.name}/events/part-00000`)
    expect((await bus.erase({ ...subject, tenantId: 'tenant-none' })).archiveFiles).toEqual([])
    expect(await bus.retention.pendingErasures()).toEqual(
      erased.archiveFiles.map((file) => ({
        ...{ archive: month.name, file, tenantId: 'tenant-2', subject: 'customer-22' },
        requestedAt: expect.any(Date) as Date,
      })),
    )
    expect([...(await bus.retention.rewriteArchives())].toSorted()).toEqual(
      [...erased.archiveFiles].toSorted(),
    )
    expect(await bus.retention.pendingErasures()).toEqual([])
    expect((await bus.erase(subject)).archiveFiles).toEqual([])
    const after = await restored(database, archive, 'after')
    // The others are as they were.
    expect(await database.rows(`select t::text from after.events t where not (${of}) order by 1`)).toEqual(
      await database.rows(`select t::text from before.events t where not (${of}) order by 1`),
    )
    const [counts] = await database.rows(
      `select count(*)::int as all, count(*) filter (where payload = 'null' and metadata = '{}' and erased_at is not null)::int as tombstones,
       count(distinct (id, type, source, created_at))::int as distinct from after.events where ${of}`,
    )
    expect(counts).toEqual({ all: erasedCount, tombstones: erasedCount, distinct: erasedCount })
    expect(
      await database.count(
        `select count(*) from after.attempts a join after.events e on e.id = a.event_id where ${of} and error_stack is not null`,
      ),
    ).toBe(0)
    expect(after['receipts']).toEqual(before['receipts'])
    expect((await manifestIn(folder)).tables.events.erasedCount).toBe(erasedCount)
  },
)

test('a subject that is erased before is erased in what is archived later', async () => {
  const database = await withMonth()
  const archive = archiveToFolder(await makeFolder())
  const bus = archiving(database, archive)
  const erased = await bus.erase({ tenantId: 'tenant-2', subject: 'customer-22', by: 'dpo' })
  expect(erased).toMatchObject({ archiveFiles: [] })
  expect(erased.eventCount).toBeGreaterThan(2)
  await bus.prune({ by: 'ana' })
  await restored(database, archive, 'restored')
  expect(
    await database.count(
      `select count(*) from restored.events where tenant_id = 'tenant-2' and subject = 'customer-22' and (payload <> 'null' or erased_at is null)`,
    ),
  ).toBe(0)
})

test('restoring refuses a file that was changed, and a table that exists, and leaves nothing behind', async () => {
  const database = await withMonth(50)
  const folder = await makeFolder()
  const archive = archiveToFolder(folder)
  await archiving(database, archive).prune({ by: 'ana' })
  const { client } = await openSession(database)
  const options = {
    client: { query: async (text: string, values?: unknown[]) => client.query(text, values) },
    archive,
    manifest: manifestName,
  }
  await database.rows('create table public.there (n int)')
  await expect(restoreArchive({ ...options, into: 'public.there' })).rejects.toThrow('already exists')
  for (const wrong of [
    { into: 'a.b.c' },
    { into: '' },
    { into: 'x', table: 'outbox' },
    { into: 'x', client: {} },
    { into: 'x', archive: 1 },
    { into: 'public.there' },
    { into: 'no_such_schema.x' },
    { into: `public.${'x'.repeat(64)}` },
    { into: 'x', manifest: 'no-such/manifest.json' },
    { into: 'x', manifest: '../manifest.json' },
  ])
    await expect(restoreArchive({ ...options, ...(wrong as object) } as never)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  const [file] = (await manifestIn(folder)).tables.events.files
  const path = join(folder, file?.name ?? '')
  const text = gunzipSync(await readFile(path)).toString()
  await writeFile(path, gzipSync(text.replace('tenant-1', 'tenant-9')))
  await expect(restoreArchive({ ...options, into: 'public.restored' })).rejects.toThrow(
    'is not what its manifest says',
  )
  expect(await database.rows(`select to_regclass('public.restored') as there`)).toEqual([{ there: null }])
})

test('a range that is dropped again, because old events were copied in, gets an archive of its own', async () => {
  const database = await withMonth(50)
  const folder = await makeFolder()
  const bus = archiving(database, archiveToFolder(folder))
  await bus.prune({ by: 'ana' })
  const first = await manifestIn(folder)
  await makeMonth(database, month)
  await fillMonth(database, month, 20)
  expect(await bus.prune({ by: 'ana' })).toMatchObject({ ranges: [{ outcome: 'dropped' }] })
  expect(await manifestIn(folder)).toEqual(first)
  const second = JSON.parse(
    await readFile(join(folder, `${month.name}_2/manifest.json`), 'utf8'),
  ) as ArchiveManifest
  expect(second.tables.events.rowCount).toBe(20)
  expect(await database.rows('select name, state from bus.archives order by id')).toEqual([
    { name: month.name, state: 'dropped' },
    { name: `${month.name}_2`, state: 'dropped' },
  ])
})

test('a folder keeps its files inside', async () => {
  const archive = archiveToFolder(await makeFolder())
  await expect(archive.read('../x')).rejects.toThrow('out of the folder')
  expect(() => archiveToFolder('')).toThrow('Expected `path`')
  expect(() => archiveToFolder('x', { format: 'zip' as never })).toThrow('Expected `format`')
})
