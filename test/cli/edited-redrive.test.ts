import { chmod, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents } from '../../src/index.ts'
import { createFolder, runCli, type CliResult } from '../support/cli.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { createOperatorFolder, hostile, jsonLines, operate } from '../support/operated.ts'
import { shareTemplate } from '../support/shared-template.ts'

const createOperated = shareTemplate(operate)

/** An editor that replaces a text by another one, and tells what it was given. */
async function createEditor(
  from: string,
  to: string,
): Promise<{ readonly path: string; readonly seen: string }> {
  const folder = await createFolder()
  const [path, seen] = [join(folder, 'an editor.mjs'), join(folder, 'seen.txt')]
  await writeFile(
    path,
    `#!${process.execPath}
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
const file = process.argv.at(-1)
copyFileSync(file, ${JSON.stringify(seen)})
writeFileSync(${JSON.stringify(`${seen}.mode`)}, (statSync(file).mode & 0o777).toString(8))
writeFileSync(file, readFileSync(file, 'utf8').replace(${JSON.stringify(from)}, ${JSON.stringify(to)}))
`,
  )
  await chmod(path, 0o755)
  return { path: `'${path}' --wait`, seen }
}

test('an edit in $EDITOR is shown as a difference, asked about, delivered in the place of the dead letter, and recorded', async () => {
  const { url } = (await createOperated()).database
  const folder = await createOperatorFolder()
  const editor = await createEditor('"amountCents": 1', '"amountCents": 4200')
  const run = async (answers: readonly string[], ...more: readonly string[]): Promise<CliResult> =>
    runCli(
      folder,
      ['dead-letters', 'redrive', 'paid-1', '--edit', '--reason', 'a wrong amount', ...more],
      { DATABASE_URL: url, BOSSBUS_BY: 'ada', NO_COLOR: '1', EDITOR: editor.path },
      { columns: 100, answers },
    )
  const dry = await run([], '--dry-run', '--json')
  expect(jsonLines(dry)).toEqual([{ changes: [{ path: 'payload.amountCents', what: 'changed' }] }])
  expect(JSON.parse(await readFile(editor.seen, 'utf8'))).toEqual({ paymentId: hostile, amountCents: 1 })
  expect(await readFile(editor.seen, 'utf8')).not.toMatch(/\p{Cf}/u)
  expect(await readFile(`${editor.seen}.mode`, 'utf8')).toBe('600')

  const declined = await run(['n'])
  expect(declined.code).toBe(1)
  expect(declined.err).toMatch(/^- {3}"amountCents": 1$/m)
  expect(declined.err).toMatch(/^\+ {3}"amountCents": 4200$/m)
  expect(declined.err).not.toMatch(/\p{Cf}/u)
  // What was typed is not lost.
  const [, draft = ''] = /Your edit is kept: .* --payload (\S+)$/m.exec(declined.err) ?? []
  expect(JSON.parse(await readFile(draft, 'utf8'))).toMatchObject({ amountCents: 4200 })
  const kept = await runCli(
    folder,
    ['dead-letters', 'redrive', 'paid-1', '--payload', draft, '--by', 'ben', '--yes', '--json'],
    { DATABASE_URL: url },
  )
  expect(kept.code).toBe(0)
  const [done] = jsonLines(kept)
  expect(kept.err).toMatch(new RegExp(`Next: bossbus events show ${String(done?.['id'])}$`))
  expect(
    await runCli(folder, ['audit', '--action', 'deadLetters.redriveEdited', '--json'], { DATABASE_URL: url }),
  ).toMatchObject({
    out: expect.stringMatching(/"by":"ben".*"path":"payload.amountCents"/) as string,
  })
  const [copy] = jsonLines(
    await runCli(folder, ['events', 'show', String(done?.['id']), '--json'], { DATABASE_URL: url }),
  )
  expect(copy).toMatchObject({ event: { payload: { amountCents: 4200 } } })
  await import('node:fs/promises').then(async ({ rm }) => rm(dirname(draft), { recursive: true }))
  // The dead letter is none any more.
  expect((await run(['y'])).code).toBe(1)
})

test('what is no JSON, does not fit the schema or changes nothing changes nothing', async () => {
  const { url, count } = (await createOperated()).database
  const folder = await createOperatorFolder()
  await writeFile(join(folder, 'broken.json'), '{')
  await writeFile(join(folder, 'unfit.json'), '{"paymentId":"1","amountCents":"many"}')
  await writeFile(join(folder, 'same.json'), JSON.stringify({ amountCents: 0, paymentId: hostile }))
  const run = async (file: string): Promise<CliResult> =>
    runCli(folder, ['dead-letters', 'redrive', 'paid-0', '--payload', file, '--yes'], { DATABASE_URL: url })
  expect(await run('broken.json')).toMatchObject({
    ...{ code: 2, out: '', err: expect.stringMatching(/^broken\.json is no JSON: /) as string },
  })
  expect(await run('unfit.json')).toMatchObject({
    ...{ code: 2, out: '', err: expect.stringMatching(/^BUS_INVALID_EVENT: /) as string },
  })
  expect(await run('same.json')).toMatchObject({
    code: 1,
    out: 'Nothing differs from the event: nothing was changed.',
  })
  expect(await count(`select count(*) from bus.audit where action like 'deadLetters%'`)).toBe(0)
  expect(await count(`select count(*) from bus.failing where state = 'dead'`)).toBe(3)
})

test('an editor that fails changes nothing', async () => {
  const { url } = (await createOperated()).database
  const failed = await runCli(
    await createOperatorFolder(),
    ['dead-letters', 'redrive', 'paid-0', '--edit'],
    { DATABASE_URL: url, VISUAL: 'exit 3;' },
    { answers: ['y'] },
  )
  expect(failed).toMatchObject({ code: 2, err: 'The editor `exit 3;` ended with 3: nothing was changed' })
})

test('a value that is hidden is never replaced by the text that hides it', async () => {
  const { url, rows } = await createTestDatabase()
  const events = defineEvents({
    card: { schema: z.object({ number: z.string(), cents: z.number() }), redact: ['number'] },
  })
  const bus = createBus({ database: url, events, source: 'cards', logger: silent })
  bus.subscribe({
    ...{ name: 'doomed', events: ['card'], retry: { maxAttempts: 1 }, circuitBreaker: false },
    handler: () => {
      throw new Error('no')
    },
  })
  await bus.start()
  const card = await bus.tryPublish({ type: 'card', tenantId: 'acme', payload: { number: '4111', cents: 1 } })
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  await bus.stop()
  const support = new URL('../../', import.meta.url).pathname
  const folder = await createFolder({
    'bossbus.config.ts': `import { defineEvents } from ${JSON.stringify(`${support}src/index.ts`)}
import { z } from ${JSON.stringify(`${support}node_modules/zod/index.js`)}
export default { source: 'cards', events: defineEvents({
  card: { schema: z.object({ number: z.string(), cents: z.number() }), redact: ['number'] },
}) }`,
    'edited.json': '{"number":"[redacted]","cents":2}',
  })
  const run = async (file: string): Promise<CliResult> =>
    runCli(folder, ['dead-letters', 'redrive', card?.id ?? '', '--payload', file, '--yes', '--json'], {
      DATABASE_URL: url,
    })
  expect((await run('edited.json')).code).toBe(0)
  expect(
    await rows(
      `select payload->>'number' as number, payload->>'cents' as cents from bus.events where causation_id = $1`,
      [card?.id],
    ),
  ).toEqual([{ number: '4111', cents: '2' }])
})

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
