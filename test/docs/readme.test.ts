import { spawn } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { createTestDatabase, until } from '../support/database.ts'

const root = new URL('../../', import.meta.url)

test("the README's example runs as it is printed", { timeout: 60_000 }, async () => {
  const { url, count } = await createTestDatabase({ empty: true })
  const readme = await readFile(new URL('README.md', root), 'utf8')
  const [, example = ''] = /runs this -->\n```ts\n([\s\S]*?)```/.exec(readme) ?? []
  expect(example).toContain('bus.publish(tx')
  expect(example.trimEnd().split('\n').length).toBeLessThanOrEqual(32)
  // Beside the tests, so that its imports are found; the package itself is imported as its source.
  const program = new URL(`test/docs/readme-example-${process.pid}.tmp.ts`, root)
  await writeFile(program, example.replaceAll("from 'bossbus'", "from '../../src/index.ts'"))
  const child = spawn(process.execPath, [fileURLToPath(program)], {
    env: { ...process.env, DATABASE_URL: url },
  })
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await rm(program, { force: true })
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  await until('the handler printed its line', () => /open a case for [0-9a-f-]{36} of acme/.test(output))
  expect(await count('select count(*) from bus.events')).toBe(1)
})
