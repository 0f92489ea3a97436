import { expect, test } from 'vitest'
import type { TraceNode } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'

/** The tree as nested lists of subjects. */
function shape(nodes: readonly TraceNode[]): unknown {
  return nodes.map(({ event, cause, children }) => [
    event.subject,
    cause,
    ...(children.length === 0 ? [] : [shape(children)]),
  ])
}

async function fill(
  events: readonly (readonly [name: string, cause?: string, correlation?: string, tenant?: string])[],
) {
  const database = await createTestDatabase()
  const ids = new Map<string, string>()
  for (const [name] of events) {
    const [row] = await database.rows('select bus.uuid_v7()::text as id')
    ids.set(name, String(row?.['id']))
  }
  const idOf = (name: string | undefined): string | null =>
    name === undefined ? null : (ids.get(name) ?? name)
  for (const [name, cause, correlation, tenant = 'acme'] of events)
    await database.rows(
      `insert into bus.events (id, tenant_id, type, source, subject, payload, causation_id, correlation_id) values ($1, $2, 'note', 'sql', $3, '1', $4, $5)`,
      [idOf(name), tenant, name, idOf(cause), idOf(correlation)],
    )
  return { bus: testBus(database.url), idOf: (name: string) => String(idOf(name)) }
}

test('the tree of a correlation, from its id or from any of its events', async () => {
  const { bus, idOf } = await fill([
    ['root'],
    ['a', 'root', 'root'],
    ['b', 'root', 'root'],
    ['a1', 'a', 'root'],
    ['a2', 'a', 'root'],
    ['other'],
    ['of-rival', 'a', 'root', 'rival'],
  ])
  const tree = [
    [
      'root',
      'none',
      [
        [
          'a',
          'found',
          [
            ['a1', 'found'],
            ['a2', 'found'],
            ['of-rival', 'found'],
          ],
        ],
        ['b', 'found'],
      ],
    ],
  ]
  for (const name of ['root', 'a', 'a2', 'of-rival']) {
    const found = await bus.events.traceTree(idOf(name))
    expect([name, shape(found.roots)]).toEqual([name, tree])
    expect(found).toMatchObject({ eventCount: 6, isPartial: false })
  }
  expect(shape((await bus.events.traceTree(idOf('a'), { tenantId: 'acme' })).roots)).toEqual([
    [
      'root',
      'none',
      [
        [
          'a',
          'found',
          [
            ['a1', 'found'],
            ['a2', 'found'],
          ],
        ],
        ['b', 'found'],
      ],
    ],
  ])
  expect(shape((await bus.tenant('rival').events.traceTree(idOf('of-rival'))).roots)).toEqual([
    ['of-rival', 'missing'],
  ])
  expect((await bus.tenant('rival').events.traceTree(idOf('root'))).roots).toMatchObject([
    { event: { subject: 'of-rival' } },
  ])
  expect(await bus.events.traceTree(idOf('root'), { limit: 3 })).toMatchObject({
    eventCount: 3,
    isPartial: true,
  })
  expect(await bus.events.traceTree('nothing')).toEqual({ roots: [], eventCount: 0, isPartial: false })
})

test('causes that are missing, of another correlation, or in a circle', async () => {
  const gone = '019a2279-8604-70ad-bda8-b7b51b3cd606'
  const { bus, idOf } = await fill([
    ['orphan', gone, 'flow'],
    ['child', 'orphan', 'flow'],
    ['first', 'third', 'round'],
    ['second', 'first', 'round'],
    ['third', 'second', 'round'],
    ['beside', 'second', 'round'],
    ['itself', 'itself', 'alone'],
    ['start'],
    ['uncorrelated', 'start'],
    ['effect', 'uncorrelated', 'elsewhere'],
  ])
  expect(shape((await bus.events.traceTree('flow')).roots)).toEqual([
    ['orphan', 'missing', [['child', 'found']]],
  ])
  expect(shape((await bus.events.traceTree('round')).roots)).toEqual([
    [
      'first',
      'circular',
      [
        [
          'second',
          'found',
          [
            ['third', 'found'],
            ['beside', 'found'],
          ],
        ],
      ],
    ],
  ])
  expect(shape((await bus.events.traceTree('alone')).roots)).toEqual([['itself', 'circular']])
  expect(shape((await bus.events.traceTree(idOf('start'))).roots)).toEqual([
    ['start', 'none', [['uncorrelated', 'found', [['effect', 'found']]]]],
  ])
  // The list says the same, in causal order.
  expect((await bus.events.trace('round')).map(({ subject }) => subject)).toHaveLength(4)
})
