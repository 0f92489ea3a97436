import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { commands } from '../../src/cli/commands/all.ts'
import { testBus } from '../support/bus.ts'
import { runCli } from '../support/cli.ts'
import {
  addPoison,
  createOperatorFolder,
  hostile,
  jsonLines,
  operate,
  poisonId,
  type Operated,
} from '../support/operated.ts'
import { shareTemplate } from '../support/shared-template.ts'

interface Field {
  readonly name: string
  readonly isOptional: boolean
}

/** By the command, with the option that makes a difference. */
const documented = new Map(
  readFileSync(new URL('../../docs/command-line-json.md', import.meta.url), 'utf8')
    .split('\n')
    .flatMap((line): [string, readonly Field[]][] => {
      const [, label, cell] = /^\| `([^`]+)` \| (.*) \|$/.exec(line) ?? []
      if (label === undefined || cell === undefined) return []
      const fields = [...cell.matchAll(/`(\w+)(\??)`/g)]
      return [[label, fields.map(([, name = '', mark]) => ({ name, isOptional: mark === '?' }))]]
    }),
)

/** Stands for the id of an operation that was listed. */
const listed = '<operation>'

/** For each row of the page a call, in this order: those that change something come after those that need what they change. */
const calls = ({
  paid: [first = '', second = '', third = ''],
}: Operated): Readonly<Record<string, readonly string[]>> => ({
  init: ['--dry-run'],
  'migrate --dry-run': [],
  migrate: [],
  doctor: [],
  status: [],
  instances: [],
  tenants: [],
  audit: [],
  'events find': [],
  'events show': [first],
  'events trace': [first],
  'events tail': ['--limit', '1', '--from', '1h'],
  'events publish --dry-run': ['note', '--tenant', 'acme', '--payload', '1'],
  'events publish': ['note', '--tenant', 'acme', '--payload', '1'],
  explain: [first],
  'dead-letters list': [],
  'dead-letters groups': [],
  'dead-letters show': [first],
  'dead-letters redrive --dry-run': [first],
  'dead-letters redrive': [first, '--yes'],
  'dead-letters redrive --payload': ['edited.json', second, '--yes'],
  'dead-letters discard --dry-run': [third, '--reason', 'a test'],
  'dead-letters discard': [third, '--reason', 'a test', '--confirm', 'ledger'],
  'quarantine list': [],
  'quarantine show': [poisonId],
  'quarantine retry --dry-run': [poisonId],
  'quarantine discard --dry-run': [poisonId, '--reason', 'a test'],
  'quarantine retry': [poisonId, '--yes'],
  'quarantine discard': [poisonId, '--reason', 'a test', '--yes'],
  'replay --dry-run': ['--subscription', 'mail', '--all'],
  replay: ['--subscription', 'mail', '--all', '--yes'],
  'keys list': [],
  'keys release --dry-run': ['accounts', '--tenant', hostile, '--key', hostile],
  'keys release': ['accounts', '--tenant', hostile, '--key', hostile, '--yes'],
  'operations list': [],
  'operations show': [listed],
  'operations hold': [listed],
  'operations resume': [listed],
  'operations cancel': [listed, '--yes'],
  'subscriptions list': [],
  'subscriptions show': ['ledger'],
  'subscriptions pause': ['mail'],
  'subscriptions resume': ['mail'],
  'subscriptions set': ['ledger', '--concurrency', '2', '--until', '2h'],
  'subscriptions rename': ['search', 'found'],
  'subscriptions remove --dry-run': ['found'],
  'subscriptions remove': ['found', '--confirm', 'found'],
  prune: ['--yes'],
  'archive rewrite': [],
  'erase --dry-run': ['nordwind', 'payments/42'],
  erase: ['nordwind', 'payments/42', '--confirm', 'payments/42'],
  'catalog check': [],
})

/** Rows for which these tests have nothing to show: test/cli/archive.test.ts and test/cli/catalog-diff.test.ts have. */
const unseen = ['archive list', 'archive restore', 'archive rewrite --dry-run', 'catalog diff', 'watch']

/** Their result is a document, or what others write. */
const withoutRow = ['catalog export', 'completion', 'dev', 'mcp']

const createOperated = shareTemplate(operate)

test('docs/command-line-json.md has each command that writes JSON, and no other', () => {
  const rows = Object.keys(calls({ paid: [], blocked: '' }))
  expect([...documented.keys()].toSorted()).toEqual([...rows, ...unseen].toSorted())
  const named = [...documented.keys(), ...withoutRow].map((label) => label.replace(/ --.*/, ''))
  expect(new Set(named)).toEqual(new Set(commands.map(({ name }) => name)))
})

test('docs/command-line-json.md names all fields, and those that are always there', async () => {
  const { database, content } = await createOperated()
  const folder = await createOperatorFolder()
  await database.rows(...addPoison)
  await writeFile(join(folder, 'edited.json'), '{"paymentId":"1","amountCents":9}')
  let operation = ''
  for (const [label, args] of Object.entries(calls(content))) {
    const bus = label === 'instances' ? testBus(database.url) : undefined
    await bus?.start()
    const call = [...label.split(' '), ...args.map((each) => (each === listed ? operation : each)), '--json']
    const result = await runCli(folder, call, { DATABASE_URL: database.url })
    await bus?.stop()
    const rows = jsonLines(result)
    expect({ label, isSomething: rows.length > 0, err: result.err }).toMatchObject({ isSomething: true })
    if (label === 'operations list') operation = String(rows.find(({ state }) => state === 'running')?.['id'])
    const fields = documented.get(label) ?? []
    const seen = new Set(rows.flatMap((row) => Object.keys(row)))
    expect({
      label,
      notNamed: [...seen].filter((name) => !fields.some((field) => field.name === name)),
      notThere: fields.filter(
        ({ name, isOptional }) => !isOptional && rows.some((row) => !Object.hasOwn(row, name)),
      ),
    }).toEqual({ label, notNamed: [], notThere: [] })
  }
})
