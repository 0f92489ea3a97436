import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, onTestFinished, test } from 'vitest'
import { createTestDatabase, until } from '../support/database.ts'

const root = new URL('../../', import.meta.url)

let thirtyLines = ''
let inFastify = ''

beforeAll(async () => {
  const readme = await readFile(new URL('README.md', root), 'utf8')
  thirtyLines = /runs this -->\n```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
  inFastify = /## In Fastify\n[\s\S]*?```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
})

/** Writes a program beside the tests, so that its imports are found; the package itself is imported as its source. */
async function write(name: string, code: string): Promise<string> {
  const file = new URL(`test/docs/readme-${name}-${process.pid}.tmp.ts`, root)
  onTestFinished(async () => rm(file, { force: true }))
  const fixed = code
    .replaceAll("'bossbus/fastify'", "'../../src/fastify/index.ts'")
    .replaceAll("'bossbus'", "'../../src/index.ts'")
  await writeFile(file, fixed)
  return fileURLToPath(file)
}

function start(args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  const child = spawn(process.execPath, args, { env: { ...process.env, ...environment } })
  onTestFinished(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  return { child, output: () => output }
}

/** What the compiler says of a program, alone: what else says how a bus of Fastify is typed is not in it. */
async function compile(file: string): Promise<string> {
  const config = file.replace('.ts', '.json')
  onTestFinished(async () => rm(config, { force: true }))
  // As most services have it.
  const compilerOptions = { noPropertyAccessFromIndexSignature: false, noUnusedLocals: false }
  const extended = fileURLToPath(new URL('tsconfig.json', root))
  await writeFile(config, JSON.stringify({ extends: extended, compilerOptions, files: [file], include: [] }))
  const compiler = fileURLToPath(new URL('node_modules/typescript/bin/tsc', root))
  const { child, output } = start([compiler, '--noEmit', '--pretty', 'false', '-p', config])
  const [code] = (await once(child, 'close')) as [number]
  return code === 0 ? output() : `${code}: ${output()}`
}

test("the README's thirty lines compile, and run as they are printed", async () => {
  const { url, count } = await createTestDatabase({ empty: true })
  expect(thirtyLines).toContain('bus.publish(tx')
  expect(thirtyLines.trimEnd().split('\n').length).toBeLessThanOrEqual(32)
  const program = await write('thirty-lines', thirtyLines)
  expect(await compile(program)).toBe('')
  const { output } = start([program], { DATABASE_URL: url })
  await until('the handler printed its line', () =>
    /^open a case for [0-9a-f-]{36} of acme\n$/.test(output()),
  )
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test("the README's service on Fastify compiles, publishes and handles", async () => {
  const { url } = await createTestDatabase({ empty: true })
  const [before = ''] = thirtyLines.split('const bus = createBus')
  const program = await write('fastify', `${before}${inFastify.replace('port: 3000', 'port: 0')}`)
  expect(await compile(program)).toBe('')
  const { child, output } = start([program], { DATABASE_URL: url })
  const address = (): string | undefined => /listening at (http:\/\/127\.0\.0\.1:\d+)/.exec(output())?.[1]
  await until(`it listens, not ${output()}`, () => address() !== undefined)
  const response = await fetch(`${address()}/payments/42/verify`, {
    method: 'POST',
    headers: { connection: 'close' },
  })
  expect(await response.json()).toMatchObject({ duplicate: false })
  await until('the event is handled', () => output().includes('open a case for 42 of acme'))
  const closed = once(child, 'close')
  child.kill('SIGTERM')
  expect(await closed).toEqual([0, null])
})
