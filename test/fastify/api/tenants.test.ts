import { expect, test } from 'vitest'
import type { ApiAction } from '../../../src/fastify/index.ts'
import { apiChanges } from '../../../src/http/access.ts'
import { apiRoutes } from '../../../src/http/routes/all.ts'
import { until } from '../../support/database.ts'
import { publish } from '../../support/ledger.ts'
import { problemsOf } from './answer-schemas.ts'
import { asJson, openApiApp } from './api-app.ts'
import { openBusyApp, type BusyApp } from './busy-bus.ts'

/** An admin of acme, who may do everything there. */
const admin = { 'x-user': 'adam', 'x-allow': 'all,publishByHand', 'x-tenant': 'acme' }

const ofTenants = apiRoutes.filter(
  ({ action, handleForTenant }) => action !== undefined && handleForTenant !== undefined,
)

const actionsOfTenants = ofTenants.map(({ action }) => action as ApiAction)

/** Requests for each read: what it finds of its own, and what somebody of acme may try to see of rival. */
function readsOf({ acme, rival }: BusyApp, replays: Readonly<Record<'acme' | 'rival', string>>) {
  type Read = {
    readonly own: string
    readonly others: readonly string[]
    readonly body?: object
    readonly otherBodies?: readonly object[]
  }
  const selection = { subscription: 'doomed' }
  const replay = { type: ['note'], subscriptions: ['quick'] }
  const reads: Partial<Record<ApiAction, Read>> = {
    stats: { own: '/stats?by=tenant', others: ['/stats?tenantId=rival', '/stats?by=tenant&tenantId=rival'] },
    'tenant.stats': { own: '/tenant-stats', others: ['/tenant-stats?tenantId=rival'] },
    'events.find': {
      own: '/events?type=note',
      others: [
        '/events?tenantId=rival',
        `/events?causationId=${rival.plain}`,
        '/events?payload={"of":"rival"}',
        '/events?status=dead&tenantId=rival',
      ],
    },
    'events.search': {
      own: '/events/search?eventId=order-1',
      others: ['/events/search?tenantId=rival', '/events/search?payload={"of":"rival"}'],
    },
    'events.tail': {
      own: `/events/tail?lagMs=0&after=${acme.plain}`,
      others: ['/events/tail?tenantId=rival', '/events/tail?payload={"of":"rival"}&lagMs=0'],
    },
    'events.get': { own: `/events/${acme.plain}`, others: [`/events/${rival.plain}`] },
    'events.states': {
      own: `/events/states?ids=${acme.plain},${rival.plain},${rival.dead}`,
      others: [`/events/states?ids=${Object.values(rival).join(',')}`],
    },
    'events.trace': {
      own: '/trace?correlationId=flow-1',
      others: ['/trace?correlationId=flow-1&tenantId=rival', `/trace?correlationId=${rival.plain}`],
    },
    'events.traceTree': {
      own: `/trace-tree?id=${acme.plain}`,
      others: [`/trace-tree?id=${rival.plain}`, `/trace-tree?id=${acme.plain}&tenantId=rival`],
    },
    deliveries: { own: `/events/${acme.dead}/deliveries`, others: [`/events/${rival.dead}/deliveries`] },
    explain: {
      own: `/events/${acme.dead}/explanation`,
      others: [`/events/${rival.dead}/explanation`, `/events/${rival.dead}/explanation?subscription=doomed`],
    },
    lookup: {
      own: '/lookup?text=order-1',
      others: [
        `/lookup?text=${rival.plain}`,
        '/lookup?text=rival',
        `/lookup?text=${replays.rival}`,
        '/lookup?text=doomed',
      ],
    },
    'deadLetters.list': {
      own: '/dead-letters',
      others: [
        '/dead-letters?tenantId=rival',
        '/dead-letters?subscription=doomed&tenantId=rival',
        `/dead-letters?replayId=${replays.rival}`,
        `/dead-letters?replayId=${replays.acme}&tenantId=rival`,
      ],
    },
    'deadLetters.get': {
      own: `/dead-letters/in-order/${acme.dead}`,
      others: [`/dead-letters/in-order/${rival.dead}`, `/dead-letters/nowhere/${rival.dead}`],
    },
    'blockedKeys.list': {
      own: '/blocked-keys?subscription=in-order',
      others: ['/blocked-keys?tenantId=rival', '/blocked-keys?subscription=in-order&tenantId=rival'],
    },
    'deadLetters.groups': { own: '/dead-letters/groups', others: ['/dead-letters/groups?tenantId=rival'] },
    'deadLetters.preview': {
      own: '/dead-letters/preview',
      body: { selection },
      others: ['/dead-letters/preview'],
      otherBodies: [
        { selection: { ...selection, tenantId: 'rival' } },
        { selection: { ...selection, ids: [rival.dead] } },
      ],
    },
    'operations.list': { own: '/operations', others: [] },
    'operations.get': { own: `/operations/${replays.acme}`, others: [`/operations/${replays.rival}`] },
    'replay.preview': {
      own: '/replay/preview',
      body: replay,
      others: ['/replay/preview'],
      otherBodies: [
        { ...replay, tenantId: 'rival' },
        { ...replay, ids: [rival.plain] },
      ],
    },
  }
  return reads
}

async function replaysOf({ bus }: BusyApp): Promise<Readonly<Record<'acme' | 'rival', string>>> {
  const all = await bus.operations.list({ kind: 'replay' })
  const of = (tenantId: string): string =>
    all.find(({ selection }) => selection['tenantId'] === tenantId)?.id ?? ''
  return { acme: of('acme'), rival: of('rival') }
}

/** The items and counts that an answer has. */
function findsIn(answer: object): unknown[] {
  return Object.entries(answer).flatMap(([name, value]) =>
    Array.isArray(value)
      ? (value as unknown[])
      : /count/i.test(name) && value !== 0
        ? [value as unknown]
        : [],
  )
}

test('whoever belongs to a tenant reads its rows, and sees nothing of another one by any read', async () => {
  const busy = await openBusyApp()
  const { bus, get, post, acme, rival, database } = busy
  // Counts are written once in ten seconds.
  await database.rows(
    `insert into bus.tenant_rollups (hour, tenant_id, published, delivered)
     select date_trunc('hour', now(), 'UTC'), t, 1, 2 from unnest(array['acme', 'rival']) as t
     on conflict do nothing`,
  )
  const reads = readsOf(busy, await replaysOf(busy))
  expect(Object.keys(reads).toSorted()).toEqual(
    actionsOfTenants.filter((action) => !(apiChanges as readonly string[]).includes(action)).toSorted(),
  )
  const secrets = ['"rival"', ...Object.values(rival)]
  for (const route of ofTenants) {
    const { action } = route
    const read = action === undefined ? undefined : reads[action]
    if (action === undefined || read === undefined) continue
    const { own, others, body, otherBodies } = read
    const ask = async (url: string, sent: object | undefined) =>
      sent === undefined ? get(`/bus/api${url}`, admin) : post(`/bus/api${url}`, sent, admin)
    const mine = await ask(own, body)
    expect([action, mine.statusCode, problemsOf(route, mine.json())]).toEqual([action, 200, []])
    const isSingle = ['events.get', 'operations.get', 'deadLetters.get'].includes(action)
    expect([action, isSingle || findsIn(mine.json()).length > 0]).toEqual([action, true])
    expect([action, secrets.filter((secret) => mine.body.includes(secret))]).toEqual([action, []])
    expect([action, mine.body]).not.toEqual([
      action,
      expect.stringMatching(/"stack"|"instanceId"|"ben"|a request/) as string,
    ])
    const attempts =
      otherBodies?.map((each) => [others[0] ?? '', each] as const) ??
      others.map((url) => [url, undefined] as const)
    for (const [url, sent] of attempts) {
      const theirs = await ask(url, sent)
      const asked = [action, url, sent]
      expect([...asked, [200, 403, 404].includes(theirs.statusCode)]).toEqual([...asked, true])
      // It may repeat what it was asked.
      const seen = secrets.filter(
        (secret) =>
          theirs.body.includes(secret) &&
          !`${url}${JSON.stringify(sent)}`.includes(secret.replaceAll('"', '')),
      )
      expect([...asked, seen]).toEqual([...asked, []])
      const answer = theirs.json<{ count?: number; eventCount?: number }>()
      // A preview looks at nothing, and says so of each subscription.
      const found =
        sent === undefined ? findsIn(answer) : [answer.count ?? answer.eventCount ?? 0].filter(Boolean)
      expect([...asked, theirs.statusCode === 200 ? found : []]).toEqual([...asked, []])
      const namesAnother = url.includes('tenantId=rival') || JSON.stringify(sent ?? {}).includes('rival"')
      expect([...asked, theirs.statusCode === 403]).toEqual([...asked, namesAnother])
    }
  }
  // The same counts as the method of the bus, which reads under row-level security.
  expect((await get('/bus/api/tenant-stats', admin)).json()).toEqual(asJson(await bus.tenant('acme').stats()))
  expect((await get('/bus/api/events?tenantId=acme', admin)).json()).toEqual(
    asJson({ events: await bus.tenant('acme').events.find({ exactNumbers: true }) }),
  )
  expect((await get('/bus/api/stats?by=hour', admin)).json()).toEqual(
    asJson(await bus.stats({ by: 'hour', tenantId: 'acme' })),
  )
  // The same as for operators, without what is theirs.
  const letter = await bus.deadLetters.get(acme.dead, 'in-order')
  expect(JSON.stringify(letter)).toMatch(/"stack".*"instanceId"/)
  const withoutTheirs = (value: unknown): unknown =>
    JSON.parse(
      JSON.stringify(value, (key, item: unknown) =>
        ['stack', 'instanceId'].includes(key) ? undefined : item,
      ),
    )
  expect((await get(`/bus/api/dead-letters/in-order/${acme.dead}`, admin)).json()).toEqual(
    withoutTheirs(letter),
  )
  expect((await get('/bus/api/blocked-keys', admin)).json()).toEqual(
    withoutTheirs({ blockedKeys: await bus.blockedKeys.list({ tenantId: 'acme' }) }),
  )
  const preview = await post(
    '/bus/api/dead-letters/preview',
    { selection: { subscription: 'doomed' } },
    admin,
  )
  expect(preview.json()).toMatchObject({ count: 1 })
  const replay = await post('/bus/api/replay/preview', { type: 'note', subscriptions: ['quick'] }, admin)
  expect(replay.json()).toMatchObject({
    eventCount: (await bus.tenant('acme').events.find({ type: 'note' })).length,
  })
})

test('whoever belongs to a tenant changes its rows, and by no change those of another one', async () => {
  const busy = await openBusyApp()
  const { bus, post, acme, rival, database } = busy
  const replays = await replaysOf(busy)
  const running = await bus.replay({ tenantId: 'rival', subscriptions: ['quick'], rate: 1, by: 'ben' })
  await bus.operations.pause(running.id, { by: 'ben' })
  const everybodys = await bus.replay({ type: 'note', subscriptions: ['quick'], rate: 1, by: 'ben' })
  await bus.operations.pause(everybodys.id, { by: 'ben' })
  const theirs = async (): Promise<unknown> => ({
    events: await database.rows(
      `select id, payload, erased_at from bus.events where tenant_id <> 'acme' order by id`,
    ),
    states: await bus.events.states(Object.values(rival)),
    letters: (await bus.deadLetters.list({ tenantId: 'rival' })).map(({ cursor }) => cursor),
    keys: (await bus.blockedKeys.list()).filter(({ tenantId }) => tenantId === 'rival'),
    operations: [
      await bus.operations.get(running.id),
      await bus.operations.get(everybodys.id),
      await bus.operations.get(replays.rival),
    ],
    cancelled: await database.rows(`select event_id from bus.cancellations where tenant_id <> 'acme'`),
    audit: await database.rows(
      `select id from bus.audit where tenant_id <> 'acme' or selection ->> 'tenantId' <> 'acme' order by id`,
    ),
    subscriptions: (await bus.subscriptions.list()).map(({ pause, overrides }) => [pause, overrides]),
  })
  const before = await theirs()
  const reason = 'an attempt'
  const key = { subscription: 'in-order', orderingKey: 'k' }
  const rivalSelections = [
    { tenantId: 'rival' },
    { tenantId: 'rival', subscription: 'doomed', ids: [rival.dead] },
    { subscription: 'doomed', ids: [rival.dead] },
  ]
  const attempts: readonly (readonly [action: ApiAction, url: string, body: object, isNothing?: boolean])[] =
    [
      ...rivalSelections.flatMap((selection) => [
        [
          'deadLetters.redrive',
          '/dead-letters/redrive',
          { selection, probe: 0 },
          !('tenantId' in selection),
        ] as const,
        [
          'deadLetters.discard',
          '/dead-letters/discard',
          { selection, reason },
          !('tenantId' in selection),
        ] as const,
      ]),
      ['deadLetters.redriveEdited', `/dead-letters/doomed/${rival.dead}/redrive-edited`, { payload: 1 }],
      [
        'deadLetters.redriveEdited',
        `/dead-letters/doomed/${rival.dead}/redrive-edited`,
        { payload: 1, dryRun: true },
      ],
      ...(['pause', 'resume', 'cancel'] as const).flatMap((step) =>
        [running.id, everybodys.id].map(
          (id) => [`operations.${step}`, `/operations/${id}/${step}`, {}] as const,
        ),
      ),
      ['replay', '/replay', { tenantId: 'rival', subscriptions: ['quick'] }],
      ['replay', '/replay', { ids: [rival.plain], subscriptions: ['quick'] }, true],
      ['blockedKeys.release', '/blocked-keys/release', { ...key, tenantId: 'rival' }],
      ['cancel', `/events/${rival.scheduled}/cancel`, { tenantId: 'rival' }],
      ['cancel', `/events/${rival.scheduled}/cancel`, {}, true],
      ['erase', '/erase', { tenantId: 'rival', subject: 'customer-1' }],
      ['publishByHand', '/events', { event: { type: 'note', tenantId: 'rival', payload: 1 } }],
    ]
  expect(new Set(attempts.map(([action]) => action))).toEqual(
    new Set(actionsOfTenants.filter((action) => (apiChanges as readonly string[]).includes(action))),
  )
  for (const [action, url, body, isNothing = false] of attempts) {
    const got = await post(`/bus/api${url}`, body, admin)
    // It is either refused, or finds nothing of its own to change.
    expect([action, body, got.statusCode]).toEqual([
      action,
      body,
      expect.toBeOneOf(isNothing ? [200, 202] : [403, 404]),
    ])
    if (got.statusCode === 202)
      await until(
        'it has ended',
        async () => (await bus.operations.get(got.json<{ id: string }>().id)).state !== 'running',
      )
    expect(got.json<object>()).not.toMatchObject({ cancelled: true })
  }
  expect(await theirs()).toEqual(before)

  // The same for its own.
  const own: readonly (readonly [url: string, body: object, answer: object])[] = [
    [
      '/dead-letters/redrive',
      { selection: { subscription: 'doomed', ids: [acme.dead] }, probe: 0 },
      { totalCount: 1, by: 'adam' },
    ],
    [`/events/${acme.scheduled}/cancel`, {}, { cancelled: true }],
    ['/blocked-keys/release', { ...key, tenantId: 'acme', skipFailed: true }, { released: true }],
    [
      '/replay',
      { ids: [acme.plain, rival.plain], subscriptions: ['quick'] },
      { expected: { eventCount: 1 } },
    ],
    [`/operations/${replays.acme}/cancel`, {}, { changed: false }],
    ['/erase', { tenantId: 'acme', subject: 'nobody' }, { eventCount: 0 }],
    [
      '/events',
      { event: { type: 'note', tenantId: 'acme', payload: { what: 'mine' } } },
      { duplicate: false },
    ],
  ]
  for (const [url, body, answer] of own) {
    const got = await post(`/bus/api${url}`, body, admin)
    expect([url, got.statusCode < 300, got.json()]).toMatchObject([url, true, answer])
  }
  await until(
    'it is dead again',
    async () => (await bus.deadLetters.list({ subscription: 'doomed' })).length === 2,
  )
  const edited = await post(
    `/bus/api/dead-letters/doomed/${acme.dead}/redrive-edited`,
    { payload: { what: 'mended' } },
    admin,
  )
  expect([edited.statusCode, edited.json()]).toMatchObject([200, { id: expect.any(String) as string }])
  const letters = await post(
    '/bus/api/dead-letters/discard',
    { selection: { from: '1970-01-01T00:00:00Z' }, reason },
    admin,
  )
  await until(
    'it has ended',
    async () => (await bus.operations.get(letters.json<{ id: string }>().id)).state !== 'running',
  )
  expect(await bus.deadLetters.list({ tenantId: 'acme' })).toEqual([])
  const { states } = before as { states: unknown }
  expect(await bus.events.states(Object.values(rival))).toEqual(states)
})

test('a selection without a condition is refused to whoever belongs to a tenant, as it is to operators', async () => {
  const { bus, post, acme } = await openBusyApp()
  const operations = await bus.operations.list()
  for (const headers of [admin, { 'x-allow': 'all' }])
    for (const [url, body] of [
      ['/dead-letters/preview', {}],
      ['/dead-letters/preview', { selection: {} }],
      ['/dead-letters/redrive', {}],
      ['/dead-letters/redrive', { selection: {}, probe: 0 }],
      ['/dead-letters/discard', { reason: 'x' }],
      ['/dead-letters/discard', { selection: {}, reason: 'x' }],
      ['/replay/preview', { subscriptions: ['quick'] }],
      ['/replay', { subscriptions: ['quick'], rate: 1, reason: 'x' }],
    ] as const) {
      const got = await post(`/bus/api${url}`, body, headers)
      expect([headers, url, body, got.statusCode, got.json()]).toMatchObject([
        ...[headers, url, body, 400, { code: 'BUS_INVALID_OPTION' }],
      ])
    }
  expect(await bus.operations.list()).toEqual(operations)
  expect((await bus.deadLetters.list({ tenantId: 'acme' })).map(({ id }) => id)).toContain(acme.dead)
  const all = await post('/bus/api/dead-letters/preview', { selection: { tenantId: 'acme' } }, admin)
  expect(all.json()).toMatchObject({ count: 2 })
})

test('whoever belongs to a tenant reads the dead letters of its own replays', async () => {
  const { bus, get, database } = await openApiApp({
    prepare: (opened) =>
      opened.subscribe({
        ...{ name: 'fragile', events: ['note'], retry: { maxAttempts: 1, delaySeconds: 0, backoff: false } },
        circuitBreaker: false,
        handler: (_event, { isReplay }) => {
          if (isReplay) throw new TypeError('not again')
        },
      }),
  })
  const note = (tenantId: string) => ({ type: 'note', tenantId, payload: 1 }) as const
  const [own = '', other = ''] = await publish(database, bus, note('acme'), note('rival'))
  await until(
    'both are delivered',
    async () =>
      (await bus.events.states([own, other])).filter(({ state }) => state === 'delivered').length === 2,
  )
  const ids: string[] = []
  for (const selection of [{ tenantId: 'acme' }, { tenantId: 'rival' }, { type: 'note' }]) {
    const { id } = await bus.replay({ ...selection, subscriptions: ['fragile'], by: 'ben' })
    const count = 'type' in selection ? 2 : 1
    await until(
      'they have failed',
      async () => (await bus.deadLetters.list({ replayId: id })).length === count,
    )
    ids.push(id)
  }
  const [mine = '', ...others] = ids
  const got = await get(`/bus/api/dead-letters?replayId=${mine}`, admin)
  expect([got.statusCode, got.json()]).toMatchObject([
    200,
    { deadLetters: [{ id: own, tenantId: 'acme', replayId: mine, failures: [{ message: 'not again' }] }] },
  ])
  expect(got.body).not.toContain('"stack"')
  expect((await get(`/bus/api/dead-letters?replayId=${mine}`)).body).toContain('"stack"')
  for (const id of others) {
    const theirs = await get(`/bus/api/dead-letters?replayId=${id}`, admin)
    expect([theirs.statusCode, theirs.json()]).toMatchObject([404, { code: 'BUS_OPERATION_NOT_FOUND' }])
  }
})
