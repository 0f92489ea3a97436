import { expect, test } from 'vitest'
import type { ApiAction } from '../../../src/fastify/index.ts'
import { apiChanges, apiReads } from '../../../src/http/access.ts'
import { apiRoutes } from '../../../src/http/routes/all.ts'
import { until } from '../../support/database.ts'
import { problemsOf } from './answer-schemas.ts'
import { asJson } from './api-app.ts'
import { openBusyApp, type BusyApp } from './busy-bus.ts'

interface ReadCase {
  readonly url: string
  readonly body?: object
  /** The same, from the method of the bus. */
  readonly answer: () => Promise<unknown>
}

/** What is another moment later. */
const volatile = new Set([
  ...['time', 'lagSeconds', 'pausedSeconds', 'seenAt', 'seenSecondsAgo', 'blockedSeconds', 'dueInSeconds'],
  ...['runningSeconds', 'recentShare', 'relay', 'ageDays', 'to', 'from', 'deadRows', 'estimatedRows'],
  ...['totalBytes', 'indexBytes', 'frozenXidAge', 'lastVacuumAt', 'lastAnalyzeAt', 'bytes', 'inFlightEvents'],
])

const steady = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (key, item: unknown) => (volatile.has(key) ? undefined : item))) as unknown

/** Of a message of the quarantine. */
const poisonId = '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'

async function addPoison({ database }: Pick<BusyApp, 'database'>): Promise<void> {
  await database.rows(
    `insert into bus.quarantined_messages (id, receiver, message_id, has_id, code, reason, received_from, content_type, headers, body, body_bytes)
     values ($1, 'orders', 'm1', true, 'BUS_MAP_FAILED', 'no field', 'queue', 'text/plain', '{"a": "b"}', 'poison', 6)`,
    [poisonId],
  )
}

function readsOf({ bus, acme }: BusyApp): Readonly<Record<(typeof apiReads)[number], ReadCase>> {
  const { events, queries, deadLetters } = bus
  const exact = { exactNumbers: true } as const
  const from = new Date(Date.now() - 3_600_000)
  const rowsOf = (url: string, rows: () => Promise<unknown>): ReadCase => ({
    url: `/queries/${url}`,
    answer: async () => ({ rows: await rows() }),
  })
  const ofDoomed = { subscription: 'doomed' }
  const some = 'subscription=doomed'
  return {
    health: { url: '/health?full=true', answer: async () => bus.health({ full: true }) },
    stats: { url: '/stats?by=subscription', answer: async () => bus.stats({ by: 'subscription' }) },
    'tenant.stats': {
      url: `/tenant-stats?tenantId=acme&from=${from.toISOString()}`,
      answer: async () => bus.tenant('acme').stats({ from }),
    },
    'queries.depth': rowsOf(`depth?${some}`, async () => queries.depth(ofDoomed)),
    'queries.lag': rowsOf('lag', async () => queries.lag()),
    'queries.throughput': rowsOf(`throughput?from=${from.toISOString()}`, async () =>
      queries.throughput({ from }),
    ),
    'queries.latency': rowsOf(`latency?${some}`, async () => queries.latency(ofDoomed)),
    'queries.deadByError': rowsOf('dead-by-error', async () => queries.deadByError()),
    'queries.retries': rowsOf('retries', async () => queries.retries()),
    'queries.active': rowsOf('active', async () => queries.active()),
    'queries.instances': rowsOf('instances?limit=5', async () => queries.instances({ limit: 5 })),
    'queries.subscriptionState': rowsOf('subscription-state', async () => queries.subscriptionState()),
    'queries.tenants': rowsOf('tenants', async () => queries.tenants()),
    'queries.blockedKeys': rowsOf('blocked-keys', async () => queries.blockedKeys()),
    'queries.scheduled': rowsOf('scheduled', async () => queries.scheduled()),
    'queries.storage': rowsOf('storage?limit=20', async () => queries.storage({ limit: 20 })),
    'queries.recentFailures': rowsOf(`recent-failures?${some}`, async () => queries.recentFailures(ofDoomed)),
    'queries.eventsByKey': rowsOf('events-by-key?key=order-1&tenantId=acme', async () =>
      queries.eventsByKey({ key: 'order-1', tenantId: 'acme' }),
    ),
    'events.find': {
      url: '/events?type=note,payment.paid&tenantId=acme&limit=3&status=dead&status.subscription=doomed&payload={"of":"acme"}',
      answer: async () => ({
        events: await events.find({
          ...{ type: ['note', 'payment.paid'], tenantId: 'acme', limit: 3, ...exact },
          ...{ status: { state: 'dead', subscription: 'doomed' }, payload: { of: 'acme' } },
        }),
      }),
    },
    'events.search': {
      url: `/events/search?pattern=note&pattern=*.paid&source=payment-service&order=oldest&readLimit=5000&from=${from.toISOString()}`,
      answer: async () =>
        events.search({
          ...{
            pattern: ['note', '*.paid'],
            source: 'payment-service',
            order: 'oldest',
            readLimit: 5000,
            from,
          },
          ...exact,
        }),
    },
    'events.tail': {
      url: `/events/tail?after=${acme.plain}&lagMs=0&limit=2`,
      async answer() {
        const found = await events.search({ after: acme.plain, order: 'oldest', limit: 2, ...exact })
        return { events: found.events, next: found.next }
      },
    },
    'events.get': {
      url: `/events/${acme.plain}`,
      answer: async () => events.get(acme.plain, exact),
    },
    'events.states': {
      url: `/events/states?ids=${acme.plain},${acme.dead}`,
      answer: async () => ({ states: await events.states([acme.plain, acme.dead]) }),
    },
    'events.trace': {
      url: '/trace?correlationId=flow-1&tenantId=acme',
      answer: async () => ({
        events: await events.trace('flow-1', { tenantId: 'acme', ...exact }),
        isPartial: false,
      }),
    },
    'events.traceTree': {
      url: `/trace-tree?id=${acme.plain}`,
      async answer() {
        const { roots, ...rest } = await events.traceTree(acme.plain, exact)
        const linesOf = (nodes: typeof roots, depth: number): object[] =>
          nodes.flatMap(({ event, cause, children }) => [
            { event, cause, depth },
            ...linesOf(children, depth + 1),
          ])
        return { lines: linesOf(roots, 0), ...rest }
      },
    },
    deliveries: {
      url: `/events/${acme.dead}/deliveries`,
      answer: async () => ({ deliveries: await bus.deliveries(acme.dead) }),
    },
    explain: {
      url: `/events/${acme.behind}/explanation?subscription=in-order`,
      answer: async () => bus.explain(acme.behind, 'in-order'),
    },
    lookup: { url: '/lookup?text=order-1', answer: async () => bus.lookup('order-1') },
    'deadLetters.list': {
      url: '/dead-letters?subscription=doomed&errorName=TypeError&limit=5',
      answer: async () => ({
        deadLetters: await deadLetters.list({
          ...{ subscription: 'doomed', errorName: 'TypeError', limit: 5 },
        }),
      }),
    },
    'deadLetters.groups': {
      url: `/dead-letters/groups?state=dead,blocked`.replace(',blocked', ''),
      answer: async () => ({ groups: await deadLetters.groups({ state: 'dead' }) }),
    },
    'deadLetters.get': {
      url: `/dead-letters/in-order/${acme.dead}`,
      answer: async () => deadLetters.get(acme.dead, 'in-order'),
    },
    'deadLetters.preview': {
      url: '/dead-letters/preview',
      body: { selection: { subscription: 'doomed', from: from.toISOString() } },
      answer: async () => deadLetters.redrive({ subscription: 'doomed', from }, { by: 'ana', dryRun: true }),
    },
    'subscriptions.list': {
      url: '/subscriptions',
      answer: async () => ({ subscriptions: await bus.subscriptions.list() }),
    },
    'subscriptions.get': {
      url: '/subscriptions/doomed',
      answer: async () => bus.subscriptions.get('doomed'),
    },
    'blockedKeys.list': {
      url: '/blocked-keys?subscription=in-order',
      answer: async () => ({ blockedKeys: await bus.blockedKeys.list({ subscription: 'in-order' }) }),
    },
    'quarantine.list': {
      url: '/quarantine?receiver=orders&limit=5',
      answer: async () => ({ messages: await bus.quarantine.list({ receiver: 'orders', limit: 5 }) }),
    },
    'quarantine.get': {
      url: `/quarantine/${poisonId}`,
      async answer() {
        const { body, ...message } = (await bus.quarantine.get(poisonId)) ?? { body: Buffer.alloc(0) }
        return { ...message, bodyBase64: Buffer.from(body).toString('base64'), isBodyCut: false }
      },
    },
    'quarantine.preview': {
      url: '/quarantine/preview',
      body: { selection: { receiver: 'orders' } },
      answer: async () => bus.quarantine.retry({ receiver: 'orders' }, { by: 'ana', dryRun: true }),
    },
    'operations.list': {
      url: '/operations?kind=replay&state=done',
      answer: async () => ({ operations: await bus.operations.list({ kind: 'replay', state: 'done' }) }),
    },
    'operations.get': {
      url: '/operations/latest',
      answer: async () => (await bus.operations.list({ limit: 1 }))[0],
    },
    'replay.preview': {
      url: '/replay/preview',
      body: {
        tenantId: 'acme',
        type: ['note'],
        subscriptions: ['quick', 'doomed'],
        from: from.toISOString(),
      },
      answer: async () =>
        bus.replay({
          ...{ tenantId: 'acme', type: ['note'], subscriptions: ['quick', 'doomed'], from, dryRun: true },
        }),
    },
    'audit.list': {
      url: '/audit?by=ben&action=replay',
      answer: async () => ({ records: await bus.audit.list({ by: 'ben', action: 'replay' }) }),
    },
    'retention.state': { url: '/retention', answer: async () => bus.retention.state() },
    'retention.archives': {
      url: '/retention/archives?limit=5',
      answer: async () => ({ archives: await bus.retention.archives({ limit: 5 }) }),
    },
    'retention.pendingErasures': {
      url: '/retention/pending-erasures',
      answer: async () => ({ files: await bus.retention.pendingErasures() }),
    },
    'prune.preview': {
      url: '/prune/preview',
      answer: async () => bus.prune({ by: 'ana', dryRun: true }),
    },
    'erasures.list': {
      url: '/erasures?tenantId=acme',
      answer: async () => ({ erasures: await bus.erasures.list({ tenantId: 'acme' }) }),
    },
    'catalogue.list': {
      url: '/catalogue',
      answer: async () => ({ types: await bus.catalogue.list() }),
    },
    'canary.last': { url: '/canary', answer: async () => ({ canary: (await bus.health()).canary }) },
  }
}

const routeOf = (action: ApiAction) => {
  const found = apiRoutes.find((route) => route.action === action)
  if (found === undefined) throw new Error(`no route for ${action}`)
  return found
}

test('every action has one route, and every route a method of its own or a path of its own', () => {
  const actions = apiRoutes.flatMap(({ action }) => (action === undefined ? [] : [action]))
  expect(actions.toSorted()).toEqual([...apiReads, ...apiChanges].toSorted())
  const places = apiRoutes.map(({ method, url }) => `${method} ${url}`)
  expect(new Set(places).size).toBe(places.length)
})

test('every read answers as the method of the bus does, and as its schema says', async () => {
  const busy = await openBusyApp()
  const { bus, database, get, post } = busy
  await addPoison(busy)
  await bus.canary()
  // Counts are written once in ten seconds.
  await database.rows(
    `insert into bus.rollups (minute, subscription_id, instance_id, published, delivered, wait_bins, run_bins)
     select date_trunc('minute', now() - interval '2 minutes'), s.id, gen_random_uuid(), 1, 2, '{0,1}', '{1}'
     from bus.subscriptions s`,
  )
  const [latest] = await bus.operations.list({ limit: 1 })
  const reads = readsOf(busy)
  const empty = [
    ...['retention.archives', 'retention.pendingErasures', 'queries.active', 'prune.preview'],
    // It has become no events.
    'quarantine.get',
  ]
  for (const action of apiReads) {
    const { url, body, answer } = reads[action]
    const path = `/bus/api${url.replace('/latest', `/${latest?.id ?? ''}`)}`
    let got = await (body === undefined ? get(path) : post(path, body))
    // Something may have happened between the two.
    const outcome = await until(
      `${action} answers the same`,
      async () => {
        const expected = JSON.stringify(steady(await answer()))
        got = await (body === undefined ? get(path) : post(path, body))
        return JSON.stringify(steady(got.json())) === expected
      },
      5000,
    ).then(
      () => 'the same',
      async () => ({ got: steady(got.json()), expected: steady(await answer()) }),
    )
    expect([action, got.statusCode, outcome]).toEqual([action, 200, 'the same'])
    expect([action, problemsOf(routeOf(action), got.json())]).toEqual([action, []])
    const lists = (Object.values(got.json<object>()) as unknown[]).filter((value) => Array.isArray(value))
    const hasItems = lists.length === 0 || lists.some((list) => list.length > 0)
    expect([action, hasItems]).toEqual([action, !empty.includes(action)])
    expect(got.headers).toMatchObject({
      'cache-control': 'no-store',
      'content-type': 'application/json; charset=utf-8',
    })
  }
  for (const url of ['/access', '/openapi.json']) {
    const got = await get(`/bus/api${url}`)
    const route = apiRoutes.find((each) => each.url === url)
    expect([url, got.statusCode, route === undefined ? undefined : problemsOf(route, got.json())]).toEqual([
      ...[url, 200, []],
    ])
  }
})

test('every explanation and every match of a lookup is as its schema says', async () => {
  const { bus, get, acme, database } = await openBusyApp()
  await bus.subscriptions.pause('quick', { by: 'ben', reason: 'a test' })
  const paused = await bus.publishByHand(
    { type: 'note', tenantId: 'acme', payload: { what: 'x' }, orderingKey: 'k' },
    { by: 'ben' },
  )
  const other = await bus.publishByHand(
    { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: 'p', amountCents: 1 } },
    { by: 'ben' },
  )
  await until('it waits', async () => (await bus.deliveries(paused.id)).length === 4)
  const reasons = new Set<string>()
  for (const id of [...Object.values(acme), paused.id, other.id, crypto.randomUUID()]) {
    const got = await get(`/bus/api/events/${id}/explanation`)
    expect(got.json()).toEqual(asJson(await bus.explain(id)))
    expect([id, problemsOf(routeOf('explain'), got.json())]).toEqual([id, []])
    for (const { reason } of got.json<{ subscriptions: { reason: { reason: string } }[] }>().subscriptions)
      reasons.add(reason.reason)
    const deliveries = await get(`/bus/api/events/${id}/deliveries`)
    expect([id, problemsOf(routeOf('deliveries'), deliveries.json())]).toEqual([id, []])
  }
  for (const reason of ['delivered', 'dead', 'retrying', 'key-blocked', 'paused', 'no-pattern-matches'])
    expect([...reasons]).toContain(reason)
  const kinds = new Set<string>()
  const [job] = await database.rows('select id from pgboss.job limit 1')
  const [operation] = await bus.operations.list()
  const [audit] = await bus.audit.list()
  const [instance] = await bus.queries.instances()
  const texts = [acme.plain, 'order-1', 'key-1', 'flow-1', 'customer-1', 'k', 'acme', 'doomed', 'note']
  for (const text of [...texts, job?.['id'], operation?.id, audit?.id, instance?.instanceId]) {
    const got = await get(`/bus/api/lookup?text=${String(text)}`)
    expect([text, problemsOf(routeOf('lookup'), got.json())]).toEqual([text, []])
    for (const { kind } of got.json<{ matches: { kind: string }[] }>().matches) kinds.add(kind)
  }
  expect([...kinds].toSorted()).toEqual(
    [
      ...['audit', 'business-id', 'correlation', 'event', 'idempotency-key', 'instance', 'job', 'operation'],
      ...['ordering-key', 'subject', 'subscription', 'tenant', 'type'],
    ].toSorted(),
  )
})

test('every change is made in the name of who sends it, answers as its schema says, and is recorded', async () => {
  const { bus, get, post, acme, rival, database } = await openBusyApp()
  const inName = { 'x-user': 'eve', 'x-allow': 'all,publishByHand' }
  const done = new Set<ApiAction>()
  async function change(action: ApiAction, url: string, body: object = {}, status = 200): Promise<unknown> {
    const got = await post(`/bus/api${url}`, body, inName)
    expect([action, got.statusCode, got.statusCode === status ? '' : got.body]).toEqual([action, status, ''])
    expect([action, problemsOf(routeOf(action), got.json())]).toEqual([action, []])
    done.add(action)
    return got.json()
  }
  const reason = 'a test'
  const ended = async (operation: unknown): Promise<void> =>
    until('it has ended', async () => {
      const { state } = await bus.operations.get((operation as { id: string }).id)
      return state !== 'running'
    })

  expect(await change('subscriptions.pause', '/subscriptions/quick/pause', { reason })).toEqual({
    changed: true,
  })
  expect(await change('subscriptions.pause', '/subscriptions/quick/pause')).toEqual({ changed: false })
  expect(await bus.subscriptions.get('quick')).toMatchObject({ pause: { by: 'eve', reason } })
  expect(await change('subscriptions.resume', '/subscriptions/quick/resume')).toEqual({ changed: true })
  const retry = { maxAttempts: 3, delaySeconds: 1 }
  expect(
    await change('subscriptions.setOptions', '/subscriptions/quick/options', {
      ...{ options: { concurrency: 3, retry, paused: true }, expiresInSeconds: 60, reason },
    }),
  ).toMatchObject({ overrides: { concurrency: 3, retry, paused: true, by: 'eve', reason } })
  const expiresAt = new Date(Date.now() + 60_000).toISOString()
  expect(
    await change('subscriptions.setOptions', '/subscriptions/quick/options', {
      ...{ options: { concurrency: 4 }, expiresAt },
    }),
  ).toMatchObject({ overrides: { concurrency: 4, expiresAt } })
  expect(
    await change('subscriptions.setOptions', '/subscriptions/quick/options', { options: {} }),
  ).not.toHaveProperty('overrides')

  const redriven = await change(
    'deadLetters.redrive',
    '/dead-letters/redrive',
    { selection: { subscription: 'doomed', ids: [acme.dead] }, reason, rate: 10, probe: 0 },
    202,
  )
  expect(redriven).toMatchObject({ kind: 'redrive', by: 'eve', reason, rate: 10 })
  await ended(redriven)
  await until(
    'it is dead again',
    async () => (await bus.deadLetters.list({ subscription: 'doomed', tenantId: 'acme' })).length === 1,
  )
  const edit = `/dead-letters/doomed/${acme.dead}/redrive-edited`
  const payload = { what: 'mended' }
  expect(await change('deadLetters.redriveEdited', edit, { payload, dryRun: true })).toEqual({
    changes: [
      { path: 'payload.of', what: 'removed' },
      { path: 'payload.what', what: 'changed' },
    ],
  })
  const { id: copyId } = (await change('deadLetters.redriveEdited', edit, { payload, reason })) as {
    id: string
  }
  expect((await bus.events.get(copyId))?.payload).toEqual(payload)
  const discarded = await change(
    'deadLetters.discard',
    '/dead-letters/discard',
    { selection: { subscription: 'doomed', tenantId: 'rival' }, reason },
    202,
  )
  await ended(discarded)
  expect(await bus.deadLetters.list({ subscription: 'doomed' })).toEqual([])
  expect(
    await change('blockedKeys.release', '/blocked-keys/release', {
      ...{ subscription: 'in-order', tenantId: 'rival', orderingKey: 'k', skipFailed: true, reason },
    }),
  ).toEqual({ released: true })
  await addPoison({ database })
  expect(
    await change('quarantine.retry', '/quarantine/retry', { selection: { ids: [poisonId] }, reason }, 202),
  ).toEqual({ count: 1 })
  expect(await bus.quarantine.get(poisonId)).toMatchObject({ state: 'retrying', decidedBy: 'eve' })
  expect(
    await change('quarantine.discard', '/quarantine/discard', { selection: { receiver: 'orders' }, reason }),
  ).toEqual({ count: 1 })
  expect(await bus.quarantine.get(poisonId)).toMatchObject({ state: 'discarded', decidedReason: reason })

  const replayed = await change(
    'replay',
    '/replay',
    { tenantId: 'acme', ids: [acme.plain], subscriptions: ['doomed'], rate: 1, reason },
    202,
  )
  expect(replayed).toMatchObject({ kind: 'replay', by: 'eve', reason, subscriptions: ['doomed'] })
  await ended(replayed)
  const { id } = await bus.replay({
    ...{ from: new Date(0), subscriptions: ['quick'], rate: 1, by: 'ben' },
  })
  const step = async (name: 'pause' | 'resume' | 'cancel'): Promise<unknown> =>
    change(`operations.${name}`, `/operations/${id}/${name}`, { reason })
  expect(await step('pause')).toEqual({ changed: true })
  expect(await bus.operations.get(id)).toMatchObject({ state: 'paused', stateBy: 'eve', stateReason: reason })
  expect(await step('pause')).toEqual({ changed: false })
  expect(await step('resume')).toEqual({ changed: true })
  expect(await step('cancel')).toEqual({ changed: true })

  expect(await change('cancel', `/events/${acme.scheduled}/cancel`, { reason, tenantId: 'acme' })).toEqual({
    cancelled: true,
  })
  expect(await change('cancel', `/events/${rival.plain}/cancel`)).toEqual({ cancelled: false })
  const published = await change('publishByHand', '/events', {
    event: {
      ...{ type: 'note', tenantId: 'acme', payload: null, eventId: 'by-hand', metadata: { a: 'b' } },
      ...{ availableAt: new Date(Date.now() + 60_000).toISOString(), expiresAt: '2999-01-01T00:00:00Z' },
    },
    reason,
  })
  const stored = await bus.events.get((published as { id: string }).id)
  expect(stored).toMatchObject({ payload: null, eventId: 'by-hand', metadata: { a: 'b' } })
  expect(stored?.availableAt).toBeInstanceOf(Date)
  expect(await change('erase', '/erase', { tenantId: 'acme', subject: 'nobody', reason })).toMatchObject({
    eventCount: 0,
  })
  expect(await change('prune', '/prune', { reason })).toMatchObject({ ranges: [] })
  expect(
    await change('retention.setPartitionSpan', '/retention/partition-span', { span: 'day', reason }),
  ).toHaveProperty('from')
  const refused = await post('/bus/api/retention/rewrite-archives', {}, inName)
  expect([refused.statusCode, refused.json()]).toMatchObject([400, { code: 'BUS_INVALID_OPTION' }])
  done.add('retention.rewriteArchives')
  expect(await change('canary', '/canary', { timeoutMs: 20_000 })).toMatchObject({ ok: true })
  expect(
    await change('subscriptions.rename', '/subscriptions/old/rename', { newName: 'older', reason }),
  ).toMatchObject({ name: 'older' })
  const removed = await change(
    'subscriptions.remove',
    '/subscriptions/older/remove',
    { waiting: { moveTo: 'quick' }, reason },
    202,
  )
  expect(removed).toMatchObject({ kind: 'remove', by: 'eve', options: { moveTo: 'quick' } })

  expect([...done].toSorted()).toEqual([...apiChanges].toSorted())
  const recorded = await database.rows(`select distinct action, actor from bus.audit where actor = 'eve'`)
  const notRecorded = new Set(['canary', 'retention.rewriteArchives', 'prune'])
  expect(recorded.map(({ action }) => String(action)).toSorted()).toEqual(
    apiChanges.filter((action) => !notRecorded.has(action)).toSorted(),
  )
  // Nothing was to be deleted, so there is nothing to record.
  expect((await get('/bus/api/audit?by=eve&action=retention.prune')).json()).toEqual({ records: [] })
})
