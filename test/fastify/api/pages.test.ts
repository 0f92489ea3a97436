import { expect, onTestFinished, test, vi } from 'vitest'
import { until, type TestDatabase } from '../../support/database.ts'
import { ended, subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { openApiApp, type ApiApp } from './api-app.ts'

interface Page {
  readonly next?: string
  readonly [list: string]: unknown
}

/** Follows `next` to the end, and gives the ids of all items. */
async function walk(
  { get }: ApiApp,
  url: string,
  list: string,
): Promise<{ readonly ids: string[]; readonly pages: number }> {
  const ids: string[] = []
  let after: string | undefined
  let pages = 0
  do {
    const answer = await get(
      `/bus/api${url}${after === undefined ? '' : `&after=${encodeURIComponent(after)}`}`,
    )
    expect([url, answer.statusCode]).toEqual([url, 200])
    const page = answer.json<Page>()
    ids.push(...(page[list] as { readonly id: string }[]).map(({ id }) => id))
    after = page.next
    pages += 1
  } while (after !== undefined && pages < 100)
  return { ids, pages }
}

async function insertNotes(
  { rows }: TestDatabase,
  count: number,
  payload = `to_jsonb(n)`,
): Promise<string[]> {
  const inserted = await rows(
    `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', ${payload} from generate_series(1, ${count}) n returning id`,
  )
  return inserted.map(({ id }) => String(id))
}

test('every list is read to its end by `next`, each item once', async () => {
  const opened = await openApiApp({ prepare: (bus) => subscribeDoomed(bus, 'doomed') })
  const { bus, database } = opened
  const ids = await insertNotes(database, 25)
  await untilDead(database, 25)
  for (const url of [
    '/events?limit=10',
    '/events?limit=10&order=oldest',
    '/events/search?limit=10',
    '/events/search?limit=10&readLimit=8&source=psql',
  ]) {
    const { ids: found, pages } = await walk(opened, url, 'events')
    expect([url, found]).toEqual([url, url.includes('oldest') ? ids : ids.toReversed()])
    expect(pages).toBeGreaterThan(2)
  }
  const letters = await walk(opened, '/dead-letters?limit=10', 'deadLetters')
  expect([letters.ids.toSorted(), letters.pages]).toEqual([ids, 3])
  // Behind a page of some types there may be more, though it is not full.
  const typed = await walk(opened, '/dead-letters?limit=10&type=note', 'deadLetters')
  expect([typed.ids.toSorted(), typed.pages]).toEqual([ids, 4])
  const redrives = []
  for (const id of ids.slice(0, 5)) {
    const operation = await bus.deadLetters.redrive(
      { subscription: 'doomed', ids: [id] },
      { by: 'ana', probe: 0 },
    )
    redrives.push(await ended(bus, operation))
  }
  const operations = await walk(opened, '/operations?limit=2', 'operations')
  expect([operations.ids, operations.pages]).toEqual([redrives.map(({ id }) => id).toReversed(), 3])
  const records = await walk(opened, '/audit?limit=2&by=ana', 'records')
  expect([records.ids, records.pages]).toEqual([(await bus.audit.list()).map(({ id }) => id), 3])
  const poison = await database.rows(
    `insert into bus.quarantined_messages (receiver, message_id, has_id, code, reason, received_from, body, body_bytes)
     select 'orders', n::text, true, 'BUS_MAP_FAILED', 'no field', 'queue', '', 0 from generate_series(1, 25) n returning id`,
  )
  const messages = await walk(opened, '/quarantine?limit=10', 'messages')
  expect([messages.ids, messages.pages]).toEqual([poison.map(({ id }) => id).toReversed(), 3])
  expect((await walk(opened, '/events?limit=25', 'events')).pages).toBe(2)
  expect((await walk(opened, '/events?limit=26', 'events')).pages).toBe(1)
})

test('a page of large events is cut, and the next one goes on where it ended', async () => {
  const opened = await openApiApp()
  const { get, database } = opened
  const ids = await insertNotes(database, 8, `to_jsonb(repeat('x', 3000000))`)
  for (const url of ['/events?limit=8', '/events/search?limit=8']) {
    const { ids: found, pages } = await walk(opened, url, 'events')
    expect([url, found, pages > 3]).toEqual([url, ids.toReversed(), true])
  }
  const first = (await get('/bus/api/events?limit=8')).json<{ events: object[] }>()
  expect(first.events).toHaveLength(2)
  await database.rows(`update bus.events set correlation_id = 'flow'`)
  expect(
    (await get('/bus/api/trace?correlationId=flow&tenantId=acme')).json<{
      events: object[]
      isPartial: boolean
    }>(),
  ).toMatchObject({ isPartial: true })
  expect(
    (await get('/bus/api/trace-tree?id=flow&tenantId=acme')).json<{ lines: object[]; isPartial: boolean }>(),
  ).toMatchObject({ isPartial: true, eventCount: 8 })
})

test('the tail shows each event once, in order, also when there is nothing new and when there is much', async () => {
  const opened = await openApiApp()
  const { get, database } = opened
  const old = await insertNotes(database, 3)
  const tail = async (query: string): Promise<{ events: { id: string }[]; next: string }> =>
    (await get(`/bus/api/events/tail?lagMs=0${query}`)).json()
  let first = await tail('')
  await until('they are past', async () => {
    first = await tail('')
    return first.events.length === 3
  })
  expect(first.events.map(({ id }) => id)).toEqual(old)
  const none = await tail(`&after=${first.next}`)
  expect(none.events).toEqual([])
  expect(none.next >= first.next).toBe(true)
  const made = await insertNotes(database, 25)
  const seen: string[] = []
  let after = none.next
  await until('all are seen', async () => {
    const page = await tail(`&after=${after.toUpperCase()}&limit=10`)
    expect(page.events.length).toBeLessThanOrEqual(10)
    seen.push(...page.events.map(({ id }) => id))
    after = page.next
    return seen.length >= 25
  })
  expect(seen).toEqual(made)
  expect((await tail(`&after=${after}`)).events).toEqual([])
  // What was published less than so long ago is shown later.
  const [late] = await insertNotes(database, 1)
  const lagging = (await get(`/bus/api/events/tail?lagMs=60000&after=${after}`)).json<{
    events: object[]
    next: string
  }>()
  expect(lagging).toEqual({ events: [], next: after })
  await until('it is seen', async () => (await tail(`&after=${after}`)).events[0]?.id === late)
  const filtered = await tail(`&after=${first.next}&type=payment.paid`)
  expect(filtered.events).toEqual([])
})

test('a tail passes over nothing where the clock of its process is ahead of that of the database', async () => {
  const { get, database } = await openApiApp()
  const now = Date.now.bind(Date)
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => now() + 8000)
  onTestFinished(() => clock.mockRestore())
  const tail = async (query: string): Promise<{ events: { id: string }[]; next: string }> =>
    (await get(`/bus/api/events/tail?lagMs=0${query}`)).json()
  const before = await tail('')
  const idle = await tail(`&after=${before.next}`)
  const [first] = await insertNotes(database, 1)
  const page = await tail(`&after=${idle.next}`)
  expect(page.events.map(({ id }) => id)).toEqual([first])
  const [second] = await insertNotes(database, 1)
  const filtered = await tail(`&after=${page.next}&type=payment.paid`)
  expect(filtered.events).toEqual([])
  expect((await tail(`&after=${filtered.next}`)).events.map(({ id }) => id)).toEqual([second])
})

test('numbers are exact, times are ISO 8601, and a chain of events is as deep as it is', async () => {
  const { get, database } = await openApiApp()
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, correlation_id)
     values ('acme', 'note', 'psql', '{"id": 9007199254740993, "rate": 0.1, "all": [1e30]}', 'big')`,
  )
  const answer = await get('/bus/api/events?correlationId=big')
  expect(answer.json()).toMatchObject({
    events: [
      {
        payload: { id: '9007199254740993', rate: 0.1, all: [1e30] },
        createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
      },
    ],
  })
  await database.rows(
    `with recursive chain as (
       select 1 as n, bus.uuid_v7() as id, null::uuid as cause
       union all select n + 1, bus.uuid_v7(), id from chain where n < 3000)
     insert into bus.events (id, tenant_id, type, source, payload, correlation_id, causation_id)
     select id, 'acme', 'note', 'psql', '1', 'chain', cause from chain order by n`,
  )
  const { lines } = (await get('/bus/api/trace-tree?id=chain&tenantId=acme&limit=5000')).json<{
    lines: { depth: number }[]
  }>()
  expect(lines.map(({ depth }) => depth)).toEqual(Array.from({ length: 3000 }, (_, n) => n))
})
