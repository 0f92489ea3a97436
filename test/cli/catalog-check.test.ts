import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type EventCatalogue } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'
import { canary, traceOfCanary } from '../support/canary.ts'
import { configText, createFolder, runCli, type CliResult } from '../support/cli.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'

/** Starts and stops a bus, as a deployment does. */
async function deploy(url: string, events: EventCatalogue, source = 'payment-service'): Promise<void> {
  const bus = createBus({ database: url, events, source, logger: recordingLogger() })
  await bus.start()
  await bus.stop({ graceMs: 0 })
}

async function store(
  { rows }: TestDatabase,
  version: number,
  payloads: readonly unknown[],
  type = 'payment.paid',
): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, schema_version, payload)
     select 'acme', $3, 'sql', $1, value from jsonb_array_elements($2::jsonb) with ordinality order by ordinality`,
    [version, JSON.stringify(payloads), type],
  )
}

async function check(
  { url }: Pick<TestDatabase, 'url'>,
  events: string,
  ...args: readonly string[]
): Promise<
  CliResult & { readonly findings: readonly Record<string, unknown>[]; readonly sampled: readonly unknown[] }
> {
  const folder = await createFolder({
    'bossbus.config.ts': configText(events, `database: ${JSON.stringify(url)},`),
  })
  const result = await runCli(folder, ['catalog', 'check', '--json', ...args])
  const plain = await runCli(folder, ['catalog', 'check', ...args])
  expect(plain.code).toBe(result.code)
  expect(JSON.stringify([result, plain])).not.toMatch(traceOfCanary)
  const report = JSON.parse(result.out) as { findings: []; sampled: [] }
  return { ...result, ...report }
}

const v1 = z.object({ id: z.string(), cents: z.int() })

test('a bus that starts records its catalogue once, whatever processes start, and again only what changed', async () => {
  const database = await createTestDatabase()
  const events = defineEvents({
    'payment.paid': { schema: v1, sources: ['a', 'b'], redact: ['id'] },
    note: { schema: z.unknown(), version: 3, upcast: { 2: (x: unknown) => x } },
  })
  await Promise.all(Array.from({ length: 5 }, async () => deploy(database.url, events)))
  const recorded = async () =>
    database.rows('select c.*, c.xmin::text from bus.catalogue c order by type, version')
  const first = await recorded()
  expect(first).toMatchObject([
    {
      type: 'note',
      version: 3,
      service: 'payment-service',
      schema: {},
      schema_origin: 'standard',
      sources: null,
      upcasts_from: 2,
      redact: null,
    },
    {
      ...{ type: 'payment.paid', version: 1, sources: ['a', 'b'], upcasts_from: null, redact: ['id'] },
      schema: { type: 'object', required: ['id', 'cents'] },
    },
  ])
  await deploy(database.url, events)
  expect(await recorded()).toEqual(first)
  // Seen again after a day, and a changed one at once.
  await database.rows(
    `update bus.catalogue set last_seen_at = now() - interval '25 hours', changed_at = now() - interval '25 hours'`,
  )
  await deploy(database.url, defineEvents({ ...events, note: { schema: z.string(), version: 3 } }))
  const [note, paid] = await database.rows(
    `select schema, upcasts_from, now() - last_seen_at < '1 hour' as seen, now() - changed_at < '1 hour' as changed from bus.catalogue order by type`,
  )
  expect(note).toEqual({ schema: { type: 'string' }, upcasts_from: null, seen: true, changed: true })
  expect(paid).toMatchObject({ seen: true, changed: false })
})

test('a bus whose role may not record its catalogue starts all the same', async () => {
  const database = await createTestDatabase()
  await database.rows(
    `create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '42501'; end $$`,
  )
  await database.rows(
    'create trigger refuse before insert or update on bus.catalogue for each statement execute function public.refuse()',
  )
  const logger = recordingLogger()
  const bus = createBus({
    database: database.url,
    events: defineEvents({ note: { schema: z.unknown() } }),
    source: 'a',
    logger,
  })
  onTestFinished(async () => bus.stop())
  await bus.start()
  expect(bus.state).toBe('started')
  expect(logger.lines).toContainEqual(
    expect.objectContaining({ level: 'debug', message: 'the catalogue could not be recorded' }),
  )
  expect(await database.count('select count(*) from bus.catalogue')).toBe(0)
})

test('a database without events and without a catalogue has nothing to break', async () => {
  const database = await createTestDatabase()
  expect(await check(database, `{ 'payment.paid': { schema: z.string() } }`)).toMatchObject({
    code: 0,
    findings: [],
  })
})

test('a change that fits passes, one that does not fails, by the recorded catalogue alone', async () => {
  const database = await createTestDatabase()
  await deploy(database.url, defineEvents({ 'payment.paid': { schema: v1 } }))
  const same = `{ 'payment.paid': { schema: z.object({ id: z.string(), cents: z.int() }) } }`
  expect(await check(database, same)).toMatchObject({
    code: 0,
    findings: [{ severity: 'note', rule: 'sample-missing' }],
  })
  const other = `{ 'payment.paid': { schema: z.object({ id: z.int(), cents: z.int() }) } }`
  expect(await check(database, other, '--sample', '0')).toMatchObject({
    code: 1,
    findings: [
      { severity: 'breaking', rule: 'stored-events-unfit', path: 'id' },
      { severity: 'breaking', rule: 'readers-unfit', path: 'id' },
    ],
  })
  const raised = `{ 'payment.paid': { schema: z.object({ id: z.int(), cents: z.int() }), version: 2, upcast: { 1: same } } }`
  expect(await check(database, raised)).toMatchObject({ code: 0 })
  // A type that is gone: nothing needs it, then the log does, then a subscription.
  expect(await check(database, '{}')).toMatchObject({
    code: 0,
    findings: [{ severity: 'note', rule: 'type-removed' }],
  })
  await store(database, 1, [{ id: 'a', cents: 1 }])
  expect(await check(database, '{}')).toMatchObject({
    code: 1,
    findings: [{ severity: 'breaking', rule: 'type-removed' }],
  })
  expect(await check(database, '{}', '--accept', 'payment.paid:type-removed')).toMatchObject({ code: 0 })
})

test('stored events of every version are tried, and what does not fit is told by path, without values', async () => {
  const database = await createTestDatabase()
  const old = (secret: unknown) => ({ items: [{ mail: secret }, { mail: secret }], cents: 1 })
  await store(
    database,
    1,
    Array.from({ length: 30 }, () => old(canary)),
  )
  await store(database, 1, [old(5), { items: 5, cents: 1 }])
  await store(database, 2, [
    { mails: [canary], cents: canary },
    { mails: ['a'], cents: 3 },
  ])
  await store(database, 4, [{ mails: [canary] }])
  await store(database, 2, [{ mails: canary }], 'other')
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, erased_at) values ('acme', 'payment.paid', 'sql', 'null', now())`,
  )
  const { code, findings, sampled } = await check(
    database,
    `{ 'payment.paid': {
      schema: z.object({ mails: z.array(z.string()), cents: z.int() }), version: 3,
      upcast: {
        1: ({ items, cents }: { items: { mail: string }[]; cents: number }) => ({ mails: items.map(({ mail }) => mail), cents }),
        2: (payload: unknown) => payload,
      },
    } }`,
    '--sample',
    '50',
  )
  expect(code).toBe(1)
  expect(sampled).toEqual([
    { type: 'payment.paid', version: 1, sampledCount: 32, unfitCount: 1 },
    { type: 'payment.paid', version: 2, sampledCount: 2, unfitCount: 1 },
    { type: 'payment.paid', version: 4, sampledCount: 1, unfitCount: 1 },
  ])
  const told = findings.map(({ severity, rule, version, path, what }) => [
    severity,
    rule,
    version,
    path,
    what,
  ])
  const text = expect.any(String) as string
  expect(told).toEqual(
    expect.arrayContaining([
      ['breaking', 'sample-unfit', 1, 'mails.*', text],
      ['breaking', 'upcast-failed', 1, undefined, expect.stringContaining('threw TypeError')],
      ['breaking', 'sample-unfit', 2, 'cents', text],
      ['breaking', 'sample-newer', 4, undefined, text],
    ]),
  )
  expect(told).toHaveLength(4)
})

test('what a transforming schema stored is no breaking change, only one that cannot be checked', async () => {
  const database = await createTestDatabase()
  await store(database, 1, [{ at: 5 }])
  const events = `{ 'payment.paid': { schema: z.object({ at: z.string().transform(Number) }) } }`
  expect(await check(database, events)).toMatchObject({
    code: 0,
    findings: [{ severity: 'warning', rule: 'sample-unfit', path: 'at' }],
  })
  // Defaults and unknown keys do not make it one.
  const plain = `{ 'payment.paid': { schema: z.object({ at: z.string(), kind: z.string().default('x') }) } }`
  expect(await check(database, plain)).toMatchObject({
    code: 1,
    findings: [{ severity: 'breaking', path: 'at' }],
  })
})

test('the sample of a large log is bounded: all of it is found by an index', async () => {
  const database = await createTestDatabase()
  await database.rows(
    `insert into bus.events (tenant_id, type, source, schema_version, payload)
     select 'acme', 'payment.paid', 'sql', 1 + i / 20000, jsonb_build_object('n', i) from generate_series(1, 60000) i`,
  )
  await database.rows('analyze bus.events')
  const startedAt = performance.now()
  const { code, sampled } = await check(
    database,
    `{ 'payment.paid': { schema: z.object({ n: z.int() }), version: 4 } }`,
  )
  expect(code).toBe(0)
  const counts = sampled as { version: number; sampledCount: number }[]
  expect(counts.reduce((sum, { sampledCount }) => sum + sampledCount, 0)).toBeLessThanOrEqual(300)
  expect(counts.map(({ version }) => version)).toEqual([1, 2, 3, 4])
  console.log(`check of 60,000 events, twice: ${Math.round(performance.now() - startedAt)} ms`)
  const plan = await database.rows(
    `explain select id from bus.events where type = 'payment.paid' and erased_at is null and id >= '01900000-0000-7000-8000-000000000000' order by id limit 1`,
  )
  expect(JSON.stringify(plan)).not.toContain('Seq Scan on events_2')
})

test('a catalogue of types that refer to themselves is compared at once, and a change of one is told once', async () => {
  const database = await createTestDatabase()
  const tree: z.ZodType = z.object({ value: z.string(), children: z.array(z.lazy(() => tree)) })
  await deploy(
    database.url,
    defineEvents({ doc: { schema: z.object({ content: z.json() }) }, tree: { schema: tree } }),
  )
  const definition = (value: string): string => `{
    doc: { schema: z.object({ content: z.json() }) },
    tree: { schema: (() => { const tree = z.object({ value: ${value}, children: z.array(z.lazy(() => tree)) }); return tree })() },
  }`
  expect(await check(database, definition('z.string()'))).toMatchObject({ code: 0, findings: sampleNotes })
  const { code, findings } = await check(database, definition('z.int()'))
  expect(code).toBe(1)
  expect(findings.filter(({ severity }) => severity === 'breaking')).toMatchObject([
    { type: 'tree', rule: 'stored-events-unfit', path: 'value' },
    { type: 'tree', rule: 'readers-unfit', path: 'value' },
  ])
})

/** There is nothing in the log. */
const sampleNotes = ['doc', 'tree'].map((type) => ({ severity: 'note', rule: 'sample-missing', type }))
