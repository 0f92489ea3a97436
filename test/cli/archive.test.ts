import { expect, test } from 'vitest'
import { fileURLToPath } from 'node:url'
import { createFolder, runCli, type CliResult } from '../support/cli.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { jsonLines } from '../support/operated.ts'
import { fillMonth, makeMonth, monthAgo } from '../support/retention.ts'

const month = monthAgo(4)
const project = fileURLToPath(new URL('../../', import.meta.url))

interface Kept {
  readonly database: TestDatabase
  readonly run: (...args: readonly string[]) => Promise<CliResult>
}

/** A database with an old month, and a configuration that archives it. */
async function createKept(): Promise<Kept> {
  const database = await createTestDatabase({ max: 6 })
  await makeMonth(database, month)
  await fillMonth(database, month, 60)
  const archive = await createFolder()
  const folder = await createFolder({
    'bossbus.config.ts': `import { archiveToFolder } from ${JSON.stringify(`${project}src/index.ts`)}
export default { source: 'payment-service', retention: { logDays: 60, archive: archiveToFolder(${JSON.stringify(archive)}) } }`,
  })
  const env = { DATABASE_URL: database.url, BOSSBUS_BY: 'ada', NO_COLOR: '1' }
  return { database, run: async (...args) => runCli(folder, args, env) }
}

test('prune says what would go, asks, archives and drops it, and the archive is listed and restored', async () => {
  const { database, run } = await createKept()
  const dry = await run('prune', '--dry-run', '--json')
  expect(jsonLines(dry)).toMatchObject([{ ranges: [{ range: { name: month.name }, outcome: 'due' }] }])
  expect(await run('prune')).toMatchObject({ code: 2, err: expect.stringMatching(/use --yes/) as string })
  expect(await database.count(`select count(*) from bus.events`)).toBe(60)
  expect(await run('archive', 'list')).toMatchObject({ code: 0, out: '', err: 'Nothing was archived.' })

  const pruned = await run('prune', '--yes', '--reason', 'space')
  expect(pruned).toMatchObject({ code: 0 })
  expect(pruned.out).toMatch(new RegExp(`^${month.name}\tdropped\t60\t`))
  expect(await database.count(`select count(*) from bus.events`)).toBe(0)
  const audited = jsonLines(await run('audit', '--by', 'ada', '--json'))
  expect(audited).toEqual(
    expect.arrayContaining([expect.objectContaining({ reason: 'space', by: 'ada' })]) as unknown,
  )
  expect(jsonLines(await run('archive', 'list', '--json'))).toMatchObject([
    {
      ...{ name: month.name, state: 'dropped', service: 'payment-service', pendingFileCount: 0 },
      ...{
        manifest: `${month.name}/manifest.json`,
        rowCounts: { events: 60 },
        from: month.from.toISOString(),
      },
    },
  ])

  await database.rows('create schema archive')
  const restore = ['archive', 'restore', month.name, '--into', 'archive.events_old']
  expect(jsonLines(await run(...restore, '--dry-run', '--json'))).toMatchObject([
    { dryRun: true, rowCount: 60, table: 'events' },
  ])
  expect(await database.rows(`select to_regclass('archive.events_old') as t`)).toEqual([{ t: null }])
  expect(await run(...restore)).toMatchObject({ code: 0, out: 'Restored 60 rows into archive.events_old.' })
  expect(await database.count('select count(*) from archive.events_old')).toBe(60)
  const restores = async (): Promise<object[]> =>
    jsonLines(await run('audit', '--action', 'restoreArchive', '--json'))
  const selection = { manifest: `${month.name}/manifest.json`, table: 'events' }
  const restored = { by: 'ada', selection, change: { into: 'archive.events_old' }, outcome: { rowCount: 60 } }
  expect(await restores()).toMatchObject([restored])
  // It is there already.
  expect(await run(...restore)).toMatchObject({
    ...{ code: 2, out: '', err: expect.stringMatching(/BUS_INVALID_OPTION: .*already exists/) as string },
  })
  expect(await restores()).toMatchObject([{ outcome: { rowCount: 0 } }, restored])
  expect(await run('archive', 'restore', 'nothing', '--into', 'archive.x')).toMatchObject({
    ...{ code: 2, err: expect.stringMatching(/manifest/) as string },
  })
})

test('an erasure is taken out of the archives too', async () => {
  const { database, run } = await createKept()
  await run('prune', '--yes')
  const erased = await run('erase', 'tenant-1', 'customer-1', '--confirm', 'customer-1')
  expect(erased.code).toBe(0)
  expect(erased.err).toMatch(/Next: bossbus archive rewrite$/)
  expect(jsonLines(await run('archive', 'rewrite', '--dry-run', '--json'))).toMatchObject(
    expect.arrayContaining([
      expect.objectContaining({ archive: month.name, tenantId: 'tenant-1', subject: 'customer-1' }),
    ]) as object,
  )
  expect((await run('archive', 'list')).err).toMatch(/Next: bossbus archive rewrite$/)
  const [rewritten] = jsonLines(await run('archive', 'rewrite', '--json'))
  expect(rewritten?.['rewrittenFiles']).not.toEqual([])
  expect(await run('archive', 'rewrite')).toMatchObject({
    ...{ code: 0, out: 'No archive holds events of erased subjects.' },
  })
  await database.rows('create schema archive')
  await run('archive', 'restore', month.name, '--into', 'archive.events_old')
  const subject = `from archive.events_old where tenant_id = 'tenant-1' and subject = 'customer-1'`
  expect(await database.count(`select count(*) ${subject}`)).toBeGreaterThan(0)
  expect(await database.count(`select count(*) ${subject} and erased_at is null`)).toBe(0)
})

test('without an archive in the configuration, what has to be archived is left, and said so: exit code 1', async () => {
  const { database, run } = await createKept()
  // The policy of another service asks for it.
  await database.rows(
    `insert into bus.retention_policies (service, policy) values ('archivist', '{"logDays": 60, "archive": true}')`,
  )
  const folder = await createFolder()
  const pruned = await runCli(folder, ['prune', '--yes'], { DATABASE_URL: database.url })
  expect(pruned.code).toBe(1)
  expect(pruned.out).toMatch(/elsewhere: it is archived first/)
  expect(await database.count('select count(*) from bus.events')).toBe(60)
  expect(await runCli(folder, ['archive', 'rewrite'], { DATABASE_URL: database.url })).toMatchObject({
    code: 0,
  })
  expect((await run('prune', '--yes')).code).toBe(0)
})
