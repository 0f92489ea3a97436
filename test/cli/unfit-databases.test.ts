import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/cli/commands/all.ts'
import { runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'
import { migrateTo, shippedMigrationCount } from '../support/migrations.ts'
import { startOlderServer } from '../support/older-server.ts'
import { createOperatorFolder, jsonLines } from '../support/operated.ts'

const nowhere = '019a2279-8604-70ad-bda8-b7b51b3cd606'

/** A call of every command that uses a database, with its questions answered. */
const calls: Readonly<Record<string, readonly string[]>> = {
  migrate: ['--dry-run'],
  doctor: [],
  status: [],
  watch: [],
  instances: [],
  tenants: [],
  audit: [],
  'events find': [],
  'events show': [nowhere],
  'events trace': ['order-1'],
  'events tail': ['--limit', '1'],
  'events publish': ['note', '--tenant', 'acme', '--payload', '1'],
  explain: [nowhere],
  'dead-letters list': [],
  'dead-letters groups': [],
  'dead-letters show': [nowhere],
  'dead-letters redrive': [nowhere, '--yes'],
  'dead-letters discard': [nowhere, '--reason', 'a test', '--confirm', 'ledger'],
  'quarantine list': [],
  'quarantine show': [nowhere],
  'quarantine retry': [nowhere, '--yes'],
  'quarantine discard': [nowhere, '--reason', 'a test', '--yes'],
  replay: ['--subscription', 'mail', '--all', '--yes'],
  'keys list': [],
  'keys release': ['accounts', '--tenant', 'acme', '--key', 'k', '--yes'],
  'operations list': [],
  'operations show': [nowhere],
  'operations hold': [nowhere],
  'operations resume': [nowhere],
  'operations cancel': [nowhere, '--yes'],
  'subscriptions list': [],
  'subscriptions show': ['ledger'],
  'subscriptions pause': ['ledger'],
  'subscriptions resume': ['ledger'],
  'subscriptions set': ['ledger', '--concurrency', '2', '--until', '2h'],
  'subscriptions rename': ['ledger', 'books'],
  'subscriptions remove': ['ledger', '--confirm', 'ledger'],
  prune: ['--yes'],
  'archive list': [],
  'archive restore': ['2026_09', '--folder', 'archive', '--into', 'archive.events'],
  'archive rewrite': [],
  erase: ['nordwind', 'payments/42', '--confirm', 'payments/42'],
  'catalog check': [],
  'catalog diff': [],
}

/** Use none, or serve on without one: they have tests of their own. */
const others = ['init', 'dev', 'catalog export', 'mcp', 'completion']

/** A folder with the configuration of a service, and an archive. */
async function createServiceFolder(): Promise<string> {
  const folder = await createOperatorFolder()
  await mkdir(join(folder, 'archive/2026_09'), { recursive: true })
  const rows = { columns: ['id'], files: [], rowCount: 0 }
  await writeFile(join(folder, 'archive/2026_09/manifest.json'), JSON.stringify({ tables: { events: rows } }))
  return folder
}

interface Unfit {
  readonly url: () => Promise<string>
  readonly message: RegExp
  /** What is there to find it out, or to mend it, and its exit code. */
  readonly fit?: Readonly<Record<string, 0 | 1>>
  /** Whether the errors are read as JSON, too: once for what the driver says, and once for what the bus does. */
  readonly isReadAsJson?: boolean
}

/** Calls at a time. */
const atOnce = 8

const toBeMigrated = { migrate: 0, doctor: 1 } as const

const databases: Readonly<Record<string, Unfit>> = {
  'that is not there': {
    url: async () => 'postgres://nobody:hunter2@127.0.0.1:1/none',
    message: /ECONNREFUSED.*\nCheck that the server runs/,
    isReadAsJson: true,
  },
  'whose role is not there': {
    url: async () => (await createTestDatabase()).url.replace(/\/\/[^@]*@/, '//bossbus_nobody@'),
    message: /^BUS_DATABASE_UNAVAILABLE: /,
  },
  'without the name': {
    url: async () => (await createTestDatabase()).url.replace(/\/[^/]*$/, '/bossbus_nowhere'),
    message: /does not have this database.*\nCheck the name of the database/,
  },
  'on a server that is too old': {
    url: async () => startOlderServer((await createTestDatabase()).url),
    message: /^BUS_DATABASE_UNSUPPORTED: Expected PostgreSQL 14 or newer, got 13\nUpdate the server/,
    fit: { doctor: 1 },
  },
  'that is not migrated': {
    url: async () => (await createTestDatabase({ empty: true })).url,
    message: /^BUS_SCHEMA_MISSING: .*\nRun: bossbus migrate$/,
    fit: toBeMigrated,
    isReadAsJson: true,
  },
  'that lacks the last migration': {
    async url() {
      const { url } = await createTestDatabase({ empty: true })
      await migrateTo(url, shippedMigrationCount() - 1)
      return url
    },
    message: /^BUS_SCHEMA_OUTDATED: .*\nRun: bossbus migrate$/,
    fit: toBeMigrated,
  },
  'that a newer version has migrated': {
    async url() {
      const { url, rows } = await createTestDatabase()
      await rows(
        `insert into bus.migrations (hash, created_at) select 'of a newer version', max(created_at) + 1 from bus.migrations`,
      )
      return url
    },
    message: /^BUS_SCHEMA_TOO_NEW: .*\nUpdate bossbus here/,
    fit: { doctor: 1 },
  },
}

describe('every command that uses a database', () => {
  test('is in this table', () => {
    expect([...Object.keys(calls), ...others].toSorted()).toEqual(commands.map(({ name }) => name).toSorted())
  })

  test.each(Object.entries(databases))(
    'fails at one %s, with a sentence and what mends it',
    async (_, { url: prepare, message, fit = {}, isReadAsJson = false }) => {
      const url = await prepare()
      const folder = await createServiceFolder()
      const env = { DATABASE_URL: url }
      const [fitting, failing] = [true, false].map((isFit) =>
        Object.entries(calls).filter(([name]) => Object.hasOwn(fit, name) === isFit),
      )
      for (const [name, given] of fitting ?? []) {
        const { code, out } = await runCli(folder, [...name.split(' '), ...given], env)
        expect({ name, code, isSomething: out !== '' }).toEqual({ name, code: fit[name], isSomething: true })
      }
      const fails = async ([name, given]: readonly [string, readonly string[]]): Promise<void> => {
        const args = [...name.split(' '), ...given]
        const { code, out, err } = await runCli(folder, args, env)
        expect(err).not.toMatch(/\n\s+at /)
        expect({ args, code, out, err }).toEqual({
          ...{ args, code: 2, out: '' },
          err: expect.stringMatching(message) as string,
        })
        if (!isReadAsJson) return
        const json = await runCli(folder, [...args, '--json'], env)
        expect(`${err}${json.out}${json.err}`).not.toContain('hunter2')
        expect({ args, code: json.code, lines: jsonLines(json) }).toEqual({
          args,
          code: 2,
          lines: [{ error: expect.objectContaining({ mend: expect.any(String) as string }) as object }],
        })
      }
      for (let at = 0; at < (failing ?? []).length; at += atOnce)
        await Promise.all((failing ?? []).slice(at, at + atOnce).map(fails))
    },
  )
})
