import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const docs = fileURLToPath(new URL('../../docs', import.meta.url))
/** Beside the tests, so that what the pages import is found. */
const folder = fileURLToPath(new URL(`guides-${process.pid}.tmp`, import.meta.url))

/** Each block of code whose first line says the name of its file. */
async function writeFilesOf(page: string): Promise<void> {
  const text = await readFile(join(docs, page), 'utf8')
  for (const [, name = '', code = ''] of text.matchAll(
    /```(?:ts|js|yaml)\n(?:\/\/|#) (\S+)\n([\s\S]*?)```/g,
  )) {
    const file = join(folder, basename(page, '.md'), name)
    await mkdir(dirname(file), { recursive: true })
    const source = relative(dirname(file), fileURLToPath(new URL('../../src', import.meta.url)))
    const fixed = code
      .replaceAll(`'bossbus'`, `'${source}/index.ts'`)
      .replaceAll(/'bossbus\/(\w+)'/g, `'${source}/$1/index.ts'`)
    await writeFile(file, fixed)
  }
}

/** What the compiler says of files, with some options beside those of the project. */
async function compile(
  name: string,
  include: readonly string[],
  exclude: readonly string[],
  compilerOptions: object,
): Promise<{ readonly code: number; readonly output: string }> {
  const root = fileURLToPath(new URL('../../', import.meta.url))
  // As most services have it.
  const lenient = { noPropertyAccessFromIndexSignature: false, noUnusedLocals: false }
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: { ...lenient, ...compilerOptions },
    include,
    exclude,
  }
  await writeFile(join(folder, name), JSON.stringify(config))
  const child = spawn(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'),
    ...['--noEmit', '-p', join(folder, name)],
  ])
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number]
  return { code, output }
}

beforeAll(async () => {
  for (const page of await readdir(docs, { recursive: true }))
    if (page.endsWith('.md')) await writeFilesOf(page)
})
afterAll(async () => rm(folder, { recursive: true, force: true }))

const fileOf = (page: string, name: string): string => join(folder, page, name)

interface Program {
  readonly output: () => string
  readonly kill: (signal: NodeJS.Signals) => void
  readonly exited: Promise<unknown>
}

function run(file: string, environment: Readonly<Record<string, string>>): Program {
  const child = spawn(process.execPath, [file], { env: { ...process.env, ...environment } })
  onTestFinished(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  return {
    output: () => output,
    kill: (signal) => void child.kill(signal),
    exited: once(child, 'close').then(([code]: unknown[]) => code),
  }
}

async function freePort(): Promise<string> {
  const server = createServer().listen(0)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return String(port)
}

test('the files that the pages show compile', async () => {
  // Beside a service on Fastify, that of NestJS would be typed by its bus.
  expect(await compile('tsconfig.json', ['**/*.ts'], ['nestjs'], {})).toEqual({ code: 0, output: '' })
})

test('the files of nestjs.md compile with the decorators of NestJS', async () => {
  const nest = { experimentalDecorators: true, emitDecoratorMetadata: true, erasableSyntaxOnly: false }
  expect(await compile('tsconfig.nest.json', ['nestjs/*.ts'], [], nest)).toEqual({ code: 0, output: '' })
})

test.each(['express', 'hono', 'fastify'])(
  'the service of %s.md publishes what it is asked, handles it, and stops in order',
  async (page) => {
    const { url, count } = await createTestDatabase({ empty: true })
    const port = await freePort()
    const program = run(fileOf(page, 'server.ts'), { DATABASE_URL: url, PORT: port })
    const at = (path: string): string => `http://127.0.0.1:${port}${path}`
    const isReady = async (): Promise<boolean> =>
      fetch(at('/ready')).then(
        ({ ok }) => ok,
        () => false,
      )
    await until(`it is ready, not ${program.output()}`, isReady)
    const close = { method: 'POST', headers: { connection: 'close' } }
    expect((await fetch(at('/payments/p1'), close)).status).toBe(201)
    await until('the event is handled', () => program.output().includes('open a case for p1'))
    // The schema refuses so long an id; neither row nor event stays.
    expect((await fetch(at(`/payments/${'p'.repeat(60)}`), close)).status).toBe(400)
    expect(await count('select count(*) from payments')).toBe(1)
    expect(await count('select count(*) from bus.events')).toBe(1)
    program.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    expect(await count('select count(*) from bus.deliveries')).toBe(1)
  },
)

test('the handler and the worker of nextjs.md', async () => {
  const { url, rows, count } = await createTestDatabase()
  await rows('create table payments (id text primary key, status text not null)')
  process.env['DATABASE_URL'] = url
  onTestFinished(() => void delete process.env['DATABASE_URL'])
  const worker = run(fileOf('nextjs', 'worker.ts'), { DATABASE_URL: url })
  const { POST } = (await import(fileOf('nextjs', 'app/payments/route.ts'))) as {
    POST: (request: Request) => Promise<Response>
  }
  const { pool, bus } = (await import(fileOf('nextjs', 'bus.ts'))) as {
    pool: { end: () => Promise<void> }
    bus: { stop: () => Promise<void> }
  }
  onTestFinished(async () => {
    await bus.stop()
    await pool.end()
  })
  const post = async (paymentId: string): Promise<number> =>
    (await POST(new Request('http://shop/payments', { method: 'POST', body: JSON.stringify({ paymentId }) })))
      .status
  const isRegistered = async (): Promise<boolean> =>
    (await count('select count(*) from bus.subscriptions')) === 1
  await until(`the worker runs, not ${worker.output()}`, isRegistered)
  expect(await post('p1')).toBe(201)
  expect(await post('p'.repeat(60))).toBe(400)
  await until('the event is handled', () => worker.output().includes('open a case for p1'))
  expect(await count('select count(*) from payments')).toBe(1)
  worker.kill('SIGTERM')
  expect(await worker.exited).toBe(0)
})

test('the handler of lambda.md publishes once, however often it is called', async () => {
  const { url, rows, count } = await createTestDatabase()
  await rows('create table payments (id text primary key, status text not null)')
  process.env['DATABASE_URL'] = url
  onTestFinished(() => void delete process.env['DATABASE_URL'])
  const { handler } = (await import(fileOf('lambda', 'handler.ts'))) as {
    handler: (request: { body: string }) => Promise<{ statusCode: number; body: string }>
  }
  const call = async (paymentId: string) => handler({ body: JSON.stringify({ paymentId }) })
  const first = await call('p1')
  expect(first.statusCode).toBe(201)
  expect(await call('p1')).toEqual({ ...first, statusCode: 200 })
  await expect(call('p'.repeat(60))).rejects.toMatchObject({ code: 'BUS_INVALID_EVENT' })
  expect(await count('select count(*) from bus.events')).toBe(1)
  expect(await count('select count(*) from payments')).toBe(1)
})

test('the processes of deployment.md share the work, and stop together', async () => {
  const { url, count } = await createTestDatabase()
  const program = run(fileOf('deployment', 'cluster.ts'), { DATABASE_URL: url })
  await until(
    `both are ready, not ${program.output()}`,
    () => program.output().match(/is ready/g)?.length === 2,
  )
  const bus = testBus(url)
  for (let n = 1; n <= 20; n += 1)
    await bus.tryPublish({
      type: 'payment.paid',
      tenantId: 'a',
      payload: { paymentId: `p${n}`, amountCents: n },
    })
  const opened = (): string[] => program.output().match(/opens a case for p\d+/g) ?? []
  await until('all are handled', () => opened().length === 20)
  expect(new Set(opened()).size).toBe(20)
  program.kill('SIGTERM')
  expect(await program.exited).toBe(0)
  expect(program.output().match(/has ended with 0/g)).toHaveLength(2)
  expect(await count('select count(*) from bus.deliveries')).toBe(20)
})

test('from-an-in-memory-bus.md calls the same listener before and after', async () => {
  const { url, count } = await createTestDatabase({ empty: true })
  const before = run(fileOf('from-an-in-memory-bus', 'before.ts'), {})
  expect(await before.exited).toBe(0)
  expect(before.output()).toBe('open a case for 42\n')
  const after = run(fileOf('from-an-in-memory-bus', 'after.ts'), { DATABASE_URL: url })
  await until(`the event is handled, not ${after.output()}`, () => after.output() === before.output())
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test('the service of from-pg-boss.md runs jobs of its own beside the bus', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const program = run(fileOf('from-pg-boss', 'side-by-side.ts'), { DATABASE_URL: url })
  const wanted = ['open a case for 42', 'receipt for 42', 'render 42']
  const printed = (): string[] => program.output().trim().split('\n').toSorted()
  await until(`all is done, not ${program.output()}`, () => wanted.every((line) => printed().includes(line)))
  expect(printed()).toEqual(wanted)
  expect(
    (await rows(`select name from pgboss.queue where name not like '\\_\\_%' order by name`)).map(
      ({ name }) => name,
    ),
  ).toEqual([
    'bus.open-case',
    'bus.open-case.dead',
    'bus.send-receipt',
    'bus.send-receipt.dead',
    'render-pdf',
  ])
  program.kill('SIGTERM')
  expect(await program.exited).toBe(0)
})

test('the SQL of publishing.md publishes, and finds a duplicate', async () => {
  const { rows, count } = await createTestDatabase()
  const page = await readFile(join(docs, 'guide/publishing.md'), 'utf8')
  const [, sql = ''] = /```sql\n([\s\S]*?)```/.exec(page) ?? []
  const statements = sql.split(/;\n/).filter((statement) => statement !== '')
  expect(statements).toHaveLength(2)
  for (const statement of statements) await rows(statement)
  expect(await count('select count(*) from bus.events')).toBe(2)
  for (const statement of statements) await rows(statement)
  // The first statement says no `eventId`.
  expect(await count('select count(*) from bus.events')).toBe(3)
})

/** What a stop takes at most, with the default `graceMs`. */
const longestStopSeconds = 36

test('the platforms of deployment.md wait for longer than a stop takes', async () => {
  const { apps } = createRequire(import.meta.url)(fileOf('deployment', 'ecosystem.config.cjs')) as {
    apps: { kill_timeout: number }[]
  }
  expect(apps[0]?.kill_timeout).toBeGreaterThan(longestStopSeconds * 1000)
  const yaml = await readFile(fileOf('deployment', 'deployment.yaml'), 'utf8')
  const [, seconds] = /terminationGracePeriodSeconds: (\d+)/.exec(yaml) ?? []
  expect(Number(seconds)).toBeGreaterThan(longestStopSeconds)
})
