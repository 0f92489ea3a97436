import { expect, test } from 'vitest'
import { createBus, defineEvents } from '../../src/index.ts'
import { configText, createFolder, runCli, type CliResult } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'
import { jsonLines } from '../support/operated.ts'
import { recordingLogger } from '../support/bus.ts'
import { z } from 'zod'

const changed = `{
  note: { schema: z.object({ text: z.string(), at: z.string() }), redact: ['text'] },
  extra: { schema: z.unknown() },
}`

const asJson = [
  {
    ...{ type: 'extra', change: 'added', service: 'payment-service', version: 1, differences: [] },
  },
  {
    ...{ type: 'gone', change: 'removed', service: 'payment-service', recordedVersion: 1, differences: [] },
  },
  {
    ...{ type: 'note', change: 'changed', service: 'payment-service', recordedVersion: 1, version: 1 },
    differences: [
      { path: 'redact', after: ['text'] },
      { path: 'schema.properties.at', after: { type: 'string' } },
      { path: 'schema.properties.text.type', before: 'number', after: 'string' },
      { path: 'schema.required.1', after: 'at' },
    ],
  },
]

test('catalog diff tells every difference from what is recorded, in the database and in a file', async () => {
  const { url } = await createTestDatabase()
  const events = defineEvents({
    note: { schema: z.object({ text: z.number() }) },
    gone: { schema: z.unknown() },
  })
  const bus = createBus({ database: url, events, source: 'payment-service', logger: recordingLogger() })
  await bus.start({ run: 'nothing' })
  await bus.stop()
  const folder = await createFolder({
    'before.ts': configText(
      '{ note: { schema: z.object({ text: z.number() }) }, gone: { schema: z.unknown() } }',
    ),
    'bossbus.config.ts': configText(changed),
  })
  const run = async (...args: readonly string[]): Promise<CliResult> =>
    runCli(folder, ['catalog', ...args], { DATABASE_URL: url })
  expect(await run('diff', '--config', 'before.ts')).toMatchObject({ code: 0, err: 'Nothing differs.' })
  expect(jsonLines(await run('diff', '--json'))).toEqual(asJson)
  await run('export', '--out', 'before.json', '--config', 'before.ts')
  const ofFile = await runCli(folder, ['catalog', 'diff', '--against', 'before.json', '--json'], {
    DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none',
  })
  expect(jsonLines(ofFile)).toEqual(asJson)
  expect((await run('diff')).out).toBe(`added  extra  version 1
removed  gone  version 1
changed  note  version 1
  + redact: ["text"]
  + schema.properties.at: {"type":"string"}
  - schema.properties.text.type: "number"
  + schema.properties.text.type: "string"
  + schema.required.1: "at"`)
  expect(await run('diff', '--against', 'none.json')).toMatchObject({
    ...{ code: 2, out: '', err: expect.stringMatching(/none\.json could not be read/) as string },
  })
  expect(await run('diff', '--against', 'before.ts')).toMatchObject({
    ...{ code: 2, err: expect.stringMatching(/is no JSON/) as string },
  })
})
