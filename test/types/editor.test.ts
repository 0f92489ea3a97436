import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  startLanguageServer,
  type LanguageServer,
  type Place,
  type Position,
} from '../support/language-server.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A program that is being written: some of it does not compile yet. */
const program = `
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription, eventTypes, mergeEvents, type DrizzleTransaction } from '../../../src/index.ts'

const paymentEvents = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
  'payment.refunded': { schema: z.object({ paymentId: z.string() }) },
})
const events = mergeEvents(paymentEvents, defineEvents({ 'case.opened': { schema: z.object({ caseId: z.string() }) } }))
const types = eventTypes(events)
declare const tx: DrizzleTransaction
const bus = createBus({ database: 'postgres://localhost', events, source: 'shop' })

const openCase = defineSubscription(events, {
  name: 'open-case',
  events: [types['payment.paid']],
  handler: async (paid, ctx) => {
    await ctx.publish({ type: types['case.opened'], payload: { caseId: paid.payload.paymentId } })
    if (paid.type === types['payment.paid']) ctx./*in ctx*/
  },
})
bus.subscribe(openCase)
bus.subscribe({ name: 'ledger', events: ['payment.*'], mode: 'exactly-once', handler: (payment, once) => once./*in once*/ })
void bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } })

void bus.publish(tx, { type: '/*in type*/' })
void bus.publish(tx, { type: 'payment.paid', payload: { /*in payload*/ } })
void bus.publish(tx, { type: 'payment.paid', /*in event*/ })
void bus.with({ tenantId: 'acme' }).publish(tx, { type: '/*in type with defaults*/' })
defineSubscription(events, { name: 'x', events: ['/*in events*/'], handler: () => {} })
bus.subscribe({ name: 'x', events: ['/*in subscribed events*/'], handler: () => {} })
defineSubscription(events, { name: 'x', events: ['payment.paid'], /*in options*/ })
bus.subscribe({ name: 'x', events: ['payment.paid'], /*in subscribed options*/ })
`

let folder: string
let file: string
let server: LanguageServer | undefined

beforeAll(async () => {
  // Inside the project, so that its dependencies are found.
  await mkdir(`${root}/node_modules/.cache`, { recursive: true })
  folder = await mkdtemp(`${root}/node_modules/.cache/editor-`)
  file = `${folder}/program.ts`
  await writeFile(
    `${folder}/tsconfig.json`,
    JSON.stringify({ extends: `${root}/tsconfig.json`, include: ['./*.ts'], exclude: [] }),
  )
  await writeFile(file, program)
  server = await startLanguageServer(folder)
  server?.open(file, program)
})

afterAll(async () => {
  await server?.end()
  await rm(folder, { recursive: true, force: true })
})

beforeEach(({ skip }) => {
  skip(server === undefined, 'the language server of the compiler, `tsc --lsp`, does not start here')
})

function editor(): LanguageServer {
  if (server === undefined) throw new Error('Expected a language server')
  return server
}

/** Where a text is, or a place in it. */
function placeOf(text: string, offset = 0): Position {
  const index = program.indexOf(text)
  if (index === -1) throw new Error(`Expected the program to have ${text}`)
  const before = program.slice(0, index + offset).split('\n')
  return { line: before.length - 1, character: before.at(-1)?.length ?? 0 }
}

/** What is offered in front of a comment of the program, without the question marks of what may be left out. */
async function offeredAt(comment: string): Promise<string[]> {
  const labels = await editor().complete(file, placeOf(`/*${comment}*/`))
  return labels.map((label) => label.replace(/\?$/, '')).toSorted()
}

/** What is shown of a name, without line breaks. */
async function shownAt(text: string, offset = 0): Promise<string> {
  const markdown = await editor().hover(file, placeOf(text, offset))
  return markdown.replaceAll(/\s+/g, ' ')
}

/** Lines of the program, from the place on. */
const linesOf = (places: readonly Place[]): string[] =>
  places
    .map(({ range }) => (program.split('\n')[range.start.line] ?? '').slice(range.start.character))
    .toSorted()

const allTypes = ['case.opened', 'payment.paid', 'payment.refunded']

describe('an editor offers', () => {
  test('the types of the catalogue where a type is published or subscribed to', async () => {
    expect(await offeredAt('in type')).toEqual(allTypes)
    expect(await offeredAt('in type with defaults')).toEqual(allTypes)
    expect(await offeredAt('in events')).toEqual(allTypes)
    expect(await offeredAt('in subscribed events')).toEqual(allTypes)
  })

  test('the keys of the payload of that type, and no others', async () => {
    expect(await offeredAt('in payload')).toEqual(['amountCents', 'paymentId'])
  })

  test('the fields of an event', async () => {
    const offered = await offeredAt('in event')
    expect(offered).toEqual(
      expect.arrayContaining(['availableIn', 'eventId', 'orderingKey', 'payload', 'tenantId']),
    )
    expect(offered).not.toContain('type')
  })

  test('the options of a subscription', async () => {
    const options = expect.arrayContaining(['handler', 'mode', 'ordered', 'retry', 'where']) as unknown
    expect(await offeredAt('in options')).toEqual(options)
    expect(await offeredAt('in subscribed options')).toEqual(options)
  })

  test('what a context has, ctx.tx in the mode exactly-once alone', async () => {
    const always = [
      ...['attempt', 'cancel', 'isReplay', 'log', 'publish', 'publishMany', 'replayId'],
      ...['signal', 'tryPublish', 'with'],
    ]
    expect(await offeredAt('in ctx')).toEqual(always)
    expect(await offeredAt('in once')).toEqual([...always, 'tx'].toSorted())
  })
})

describe('an editor shows', () => {
  test('of an event its type and payload', async () => {
    expect(await shownAt('async (paid', 'async ('.length)).toContain(
      'paid: StoredEvent<"payment.paid", { paymentId: string; amountCents: number; }>',
    )
  })

  test('of an event of several types each of them, and not the catalogue', async () => {
    const shown = await shownAt('(payment,', 1)
    expect(shown).toContain(
      'StoredEvent<"payment.paid", { paymentId: string; amountCents: number; }> | StoredEvent<"payment.refunded"',
    )
    expect(shown).not.toContain('ZodObject')
  })

  test('of a context what it is, with a short name for its transaction', async () => {
    expect(await shownAt('(paid, ctx)', '(paid, '.length)).toContain('ctx: HandlerContext<{ readonly')
    const once = await shownAt('(payment, once)', '(payment, '.length)
    expect(once).toContain('once: ExactlyOnceContext<{ readonly')
    expect(once).toContain(', PlainHandlerTransaction>')
    expect(await shownAt('const bus', 6)).toContain(', PlainHandlerTransaction, never>')
  })

  test('of calls what they do, which errors they throw, and an example', async () => {
    const publish = await shownAt("bus.publish(tx, { type: 'payment.paid', tenantId", 4)
    expect(publish).toContain('(tx: CallerTransaction, event: NewEvent<')
    expect(publish).toContain('=> Promise<Published>')
    expect(publish).toContain('if and only if the transaction commits')
    expect(publish).toContain('an InvalidEventError before anything is written')
    const define = await shownAt('defineSubscription(events, {')
    expect(define).toContain('Declares a subscription separately from the bus that runs it')
    expect(define).toContain("name: 'open-case'")
    // `@throws {@link …}` is read as a type in braces, and shown torn apart.
    for (const shown of [publish, define]) expect(shown).not.toContain('*@link*')
  })
})

describe('an editor renames', () => {
  const byConstants = [
    "'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },",
    "'payment.paid'])ctx",
    "'payment.paid']],",
  ]

  test('a type where it is declared, and with it all uses of its constant', async () => {
    const declared = placeOf("'payment.paid': {", 1)
    const changes = linesOf(await editor().rename(file, declared, 'payment.settled'))
    expect(changes).toHaveLength(byConstants.length)
    expect(linesOf(await editor().references(file, declared))).toEqual(changes)
    expect(changes.filter((line) => line.includes('types['))).toEqual([])
  })

  test('a type by its constant, and with it the declaration', async () => {
    const constant = placeOf("[types['payment.paid']]", "[types['".length)
    const changes = linesOf(await editor().rename(file, constant, 'payment.settled'))
    expect(changes).toHaveLength(byConstants.length)
    expect(changes.some((line) => line.includes('schema: z.object'))).toBe(true)
  })

  test('no plain text that has the same letters', async () => {
    const text = placeOf("type: 'payment.paid', tenantId", "type: '".length)
    const changes = linesOf(await editor().rename(file, text, 'payment.settled'))
    expect(changes.some((line) => line.includes('tenantId'))).toBe(true)
    expect(changes.some((line) => line.includes('schema: z.object'))).toBe(false)
  })
})
