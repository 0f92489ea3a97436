import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents, type EventCatalogue } from '../../../src/index.ts'
import { compareCatalogues, type TypeNeed } from '../../../src/events/compatibility/catalogue-comparison.ts'
import {
  readCatalogueDocument,
  toCatalogueDocument,
} from '../../../src/events/contracts/catalogue-document.ts'
import { describeCatalogue, type KnownType } from '../../../src/events/contracts/catalogue-description.ts'

const v1 = z.object({ id: z.string(), cents: z.int() })
const same = (payload: unknown): unknown => payload

async function known(
  service: string,
  ...catalogues: readonly EventCatalogue[]
): Promise<readonly KnownType[]> {
  const described = await Promise.all(catalogues.map(async (catalogue) => describeCatalogue(catalogue)))
  return described.flat().map((description) => ({ ...description, service }))
}

async function findings(
  now: EventCatalogue,
  before: readonly KnownType[],
  needs?: ReadonlyMap<string, TypeNeed>,
): Promise<readonly string[]> {
  const found = compareCatalogues('pay', await describeCatalogue(defineEvents(now)), before, needs)
  return found.map(({ severity, rule, path }) => `${severity} ${rule}${path === undefined ? '' : ` ${path}`}`)
}

describe('a changed catalogue', () => {
  test.each<[string, EventCatalogue, readonly string[]]>([
    ['that is the same', { paid: { schema: v1 } }, []],
    ['with a type more', { paid: { schema: v1 }, other: { schema: v1 } }, []],
    ['with an optional property more', { paid: { schema: v1.extend({ note: z.string().optional() }) } }, []],
    [
      'with a required property more',
      { paid: { schema: v1.extend({ note: z.string() }) } },
      ['breaking stored-events-unfit note'],
    ],
    [
      'with a required property less',
      { paid: { schema: v1.omit({ cents: true }) } },
      ['breaking readers-unfit cents'],
    ],
    [
      'with a property that may now be missing',
      { paid: { schema: v1.partial({ cents: true }) } },
      ['breaking readers-unfit cents'],
    ],
    [
      'with another type',
      { paid: { schema: v1.extend({ cents: z.string() }) } },
      ['breaking stored-events-unfit cents', 'breaking readers-unfit cents'],
    ],
    [
      'of a raised version with an upcast',
      { paid: { schema: z.object({ total: z.int() }), version: 2, upcast: { 1: same } } },
      [],
    ],
    [
      'of a raised version without one',
      { paid: { schema: z.object({ total: z.int() }), version: 2 } },
      ['breaking stored-events-unfit total'],
    ],
    ['of a raised version that needs none', { paid: { schema: v1.omit({ cents: true }), version: 2 } }, []],
    ['without the type', {}, ['breaking type-removed']],
    ['with fewer sources', { paid: { schema: v1, sources: ['pay'] } }, ['breaking sources-narrowed']],
    [
      'with a schema that is not known',
      {
        paid: {
          schema: { '~standard': { version: 1, vendor: 'own', validate: (value: unknown) => ({ value }) } },
        },
      },
      ['warning not-comparable'],
    ],
  ])('%s', async (_what, now, expected) => {
    expect(await findings(now, await known('pay', { paid: { schema: v1 } }))).toEqual(expected)
  })

  test('whose version was lowered breaks, and one whose oldest step was dropped', async () => {
    const v2 = { schema: z.object({ total: z.int() }), version: 2, upcast: { 1: same } }
    const before = await known('pay', { paid: { schema: v1 } }, { paid: v2 })
    expect(await findings({ paid: { schema: v1 } }, before)).toEqual(['breaking version-lowered'])
    const v3 = { schema: z.object({ sum: z.int() }), version: 3 }
    expect(await findings({ paid: { ...v3, upcast: { 1: same, 2: same } } }, before)).toEqual([])
    expect(await findings({ paid: { ...v3, upcast: { 2: same } } }, before)).toEqual([
      'breaking stored-events-unfit total',
    ])
  })

  test('tells who else may publish no more, and which paths would be shown', async () => {
    const before = await known('pay', {
      paid: { schema: v1, sources: ['pay', 'legacy'], redact: ['id', 'card'] },
    })
    const now = { paid: { schema: v1, sources: ['pay', 'new'], redact: ['card'] } }
    const found = compareCatalogues('pay', await describeCatalogue(now), before)
    expect(found.map(({ what }) => what)).toEqual([
      '`legacy` could publish it, and no longer may',
      '`redact` does not name `id` any more',
    ])
    expect(
      await findings(
        { paid: { ...now.paid, sources: ['pay', 'legacy', 'new'], redact: ['id', 'card'] } },
        before,
      ),
    ).toEqual([])
  })

  test('without a type breaks where the log or a subscription needs it, and else is noted', async () => {
    const before = await known('pay', { paid: { schema: v1 } })
    const need = (inHistory: boolean, subscriptions: string[]) =>
      new Map([['paid', { inHistory, subscriptions }]])
    expect(await findings({}, before, need(false, []))).toEqual(['note type-removed'])
    expect(await findings({}, before, need(true, []))).toEqual(['breaking type-removed'])
    expect(await findings({}, before, need(false, ['open-case']))).toEqual(['breaking type-removed'])
    // What another service declares is its own.
    expect(await findings({}, await known('other', { paid: { schema: v1 } }))).toEqual([])
  })

  test('is compared with what other services read', async () => {
    const now = { paid: { schema: v1.partial({ cents: true }) } }
    expect(await findings(now, await known('ledger', { paid: { schema: v1 } }))).toEqual([
      'breaking readers-unfit cents',
    ])
    expect(
      await findings({ paid: { schema: v1, version: 2 } }, await known('ledger', { paid: { schema: v1 } })),
    ).toEqual(['warning service-behind'])
    expect(
      await findings(
        now,
        await known('ledger', { paid: { schema: v1 } }, { paid: { schema: v1, version: 2 } }),
      ),
    ).toEqual(['warning service-ahead'])
    const both = [
      ...(await known('pay', { paid: { schema: v1 } })),
      ...(await known('pay2', { paid: { schema: v1 } })),
    ]
    // Said once.
    expect(await findings(now, both)).toEqual(['breaking readers-unfit cents'])
  })

  test('says what, why and what to do for everything it finds', async () => {
    const found = compareCatalogues(
      'pay',
      await describeCatalogue({ paid: { schema: v1.extend({ cents: z.string(), kind: z.enum(['a']) }) } }),
      await known('pay', { paid: { schema: v1 }, gone: { schema: v1 } }),
    )
    expect(found).toHaveLength(4)
    for (const { what, why, remedy } of found)
      for (const text of [what, why, remedy]) expect(text.length).toBeGreaterThan(20)
  })
})

test('a document holds everything that a comparison needs, older versions too', async () => {
  const tree: z.ZodType = z.object({ children: z.array(z.lazy(() => tree)) })
  const now = defineEvents({
    paid: { schema: v1, version: 2, upcast: { 1: same }, sources: ['pay'], redact: ['id'] },
    tree: { schema: tree },
    open: {
      schema: { '~standard': { version: 1, vendor: 'own', validate: (value: unknown) => ({ value }) } },
    },
  })
  const current = await describeCatalogue(now)
  const older = await known('pay', { paid: { schema: z.object({ old: z.string() }) }, gone: { schema: v1 } })
  const document = JSON.parse(JSON.stringify(toCatalogueDocument('pay', current, older))) as unknown
  const read = readCatalogueDocument(document, 'catalogue.json')
  expect(read.map(({ type, version, service }) => [type, version, service])).toEqual([
    ['open', 1, 'pay'],
    ['paid', 1, 'pay'],
    ['paid', 2, 'pay'],
    ['tree', 1, 'pay'],
  ])
  expect(read.find(({ type }) => type === 'tree')?.schema).toEqual(
    current.find(({ type }) => type === 'tree')?.schema,
  )
  expect(await findings(now, read)).toEqual(['warning not-comparable'])
  for (const wrong of [undefined, null, 5, {}, { 'x-bossbus': { format: 2, types: [] }, $defs: {} }])
    expect(() => readCatalogueDocument(wrong, 'x.json')).toThrow(/Expected x\.json to be a catalogue/)
})
