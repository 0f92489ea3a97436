import { expect, test } from 'vitest'
import type { ApiAsked } from '../../../src/fastify/index.ts'
import { apiChanges, apiReads } from '../../../src/http/access.ts'
import type { ApiRoute } from '../../../src/http/route.ts'
import { apiRoutes } from '../../../src/http/routes/all.ts'
import { openApiApp, type ApiApp } from './api-app.ts'

const id = '0195c2f4-7a3e-7c11-8f00-1d2e3f4a5b6c'

/** A request for a route that changes nothing in an empty database. */
async function ask({ get, post }: ApiApp, route: ApiRoute, headers: Record<string, string>) {
  const url = `/bus/api${route.url.replace(':id', id).replace(/:\w+/, 'nobody')}`
  const answer = await (route.method === 'GET' ? get(url, headers) : post(url, {}, headers))
  const { code } = answer.statusCode < 400 ? {} : answer.json<{ code?: string }>()
  return { name: route.action ?? route.url, status: answer.statusCode, code }
}

const forbidden = { status: 403, code: 'BUS_HTTP_FORBIDDEN' }

test('who is granted nothing may call no route, and changes nothing', async () => {
  const opened = await openApiApp({
    api: { access: ({ headers }) => (headers['x-user'] === 'ana' ? undefined : null) },
  })
  for (const route of apiRoutes)
    for (const headers of [{}, { 'x-user': 'eve' }])
      expect(await ask(opened, route, headers)).toEqual({ name: route.action ?? route.url, ...forbidden })
})

test.each([
  ['read', (action: string) => (apiReads as readonly string[]).includes(action)],
  ['all', (action: string) => action !== 'publishByHand'],
  ['all,publishByHand', () => true],
  [
    'read,deadLetters.redrive',
    (action: string) => (apiReads as readonly string[]).includes(action) || action === 'deadLetters.redrive',
  ],
])('%s grants what it says, and nothing else', async (allow, isGranted) => {
  const opened = await openApiApp()
  for (const route of apiRoutes) {
    const { name, status, code } = await ask(opened, route, { 'x-allow': allow })
    const expected = route.action === undefined || isGranted(route.action)
    expect([name, status !== 403]).toEqual([name, expected])
    expect([name, code === 'BUS_HTTP_FORBIDDEN']).toEqual([name, !expected])
  }
  const { actions } = (await opened.get('/bus/api/access', { 'x-allow': allow })).json<{
    actions: string[]
  }>()
  expect(actions).toEqual([...apiReads, ...apiChanges].filter(isGranted))
})

test('an action that is granted by name grants no other one', async () => {
  const opened = await openApiApp()
  for (const granted of [...apiReads, ...apiChanges])
    for (const route of apiRoutes) {
      if (route.action === undefined) continue
      const { status } = await ask(opened, route, { 'x-allow': granted })
      expect([granted, route.action, status !== 403]).toEqual([
        granted,
        route.action,
        route.action === granted,
      ])
    }
})

test('what has no form for one tenant is refused to those who belong to one', async () => {
  const opened = await openApiApp()
  const headers = { 'x-allow': 'all,publishByHand', 'x-tenant': 'acme' }
  const refused: string[] = []
  for (const route of apiRoutes) {
    const { name, status, code } = await ask(opened, route, headers)
    const isRefused = code === 'BUS_HTTP_FORBIDDEN'
    expect([name, status === 403, isRefused]).toEqual([
      ...[name, route.handleForTenant === undefined, route.handleForTenant === undefined],
    ])
    if (isRefused) refused.push(name)
  }
  // What is of all tenants, or concerns all of them.
  expect(refused.toSorted()).toEqual(
    [
      ...['audit.list', 'canary', 'canary.last', 'catalogue.list'],
      ...[
        'erasures.list',
        'health',
        'prune',
        'prune.preview',
        'retention.pendingErasures',
        'retention.archives',
      ],
      ...[
        'quarantine.list',
        'quarantine.get',
        'quarantine.preview',
        'quarantine.retry',
        'quarantine.discard',
      ],
      ...['retention.rewriteArchives', 'retention.setPartitionSpan', 'retention.state'],
      ...['get', 'list', 'pause', 'remove', 'rename', 'resume', 'setOptions'].map(
        (each) => `subscriptions.${each}`,
      ),
      ...apiReads.filter((action) => action.startsWith('queries.')),
    ].toSorted(),
  )
  const { tenantId, actions } = (await opened.get('/bus/api/access', headers)).json<{
    tenantId: string
    actions: string[]
  }>()
  expect(tenantId).toBe('acme')
  expect(actions.filter((action) => refused.includes(action))).toEqual([])
})

test('it hears what is asked for before the body is read, and may say 401', async () => {
  const asked: ApiAsked[] = []
  const { get, post } = await openApiApp({
    api: {
      access: ({ headers }, what) => {
        asked.push(what)
        if (headers['x-user'] === 'nobody')
          throw Object.assign(new Error('Who are you?'), { statusCode: 401 })
        return undefined
      },
    },
  })
  const unread = await post('/bus/api/replay', '{ not json')
  expect([unread.statusCode, unread.json()]).toMatchObject([403, { code: 'BUS_HTTP_FORBIDDEN' }])
  const unknown = await get('/bus/api/subscriptions', { 'x-user': 'nobody' })
  expect([unknown.statusCode, unknown.json()]).toEqual([
    401,
    { statusCode: 401, code: 'BUS_HTTP_UNAUTHORIZED', message: 'Who are you?' },
  ])
  expect(asked).toEqual([
    { action: 'replay', changes: true },
    { action: 'subscriptions.list', changes: false },
  ])
  await post('/bus/api/dead-letters/preview')
  await get('/bus/api/access')
  expect(asked.slice(2)).toEqual([
    { action: 'deadLetters.preview', changes: false },
    { action: undefined, changes: false },
  ])
})

test('a grant that is none lets nobody in, and the log of the app says why', async () => {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  let grant: unknown
  const { get } = await openApiApp({
    api: { access: () => grant as never },
    server: { logger: { level: 'error', stream } },
  })
  for (const [given, part] of [
    [{ by: '', allow: 'all' }, '`by`'],
    [{ by: 'x'.repeat(256), allow: 'all' }, '`by`'],
    [{ by: 'a\u0000', allow: 'all' }, '`by`'],
    [{ allow: 'all' }, '`by`'],
    [{ by: 'ana' }, '`allow`'],
    [{ by: 'ana', allow: 'write' }, '`allow`'],
    [{ by: 'ana', allow: ['deadLetters.redriv'] }, 'Did you mean `deadLetters.redrive`?'],
    [{ by: 'ana', allow: [['all']] }, '`allow`'],
    [{ by: 'ana', allow: 'all', tenantId: '' }, '`tenantId`'],
    [{ by: 'ana', allow: 'all', tenantId: null }, '`tenantId`'],
    [{ by: 'ana', allow: 'all', tenantId: undefined }, '`tenantId`'],
    [Promise.resolve({ by: 'ana', allow: 'all', tenantId: 7 }), '`tenantId`'],
    [{ by: 'ana', allow: 'all', tenant: 'acme' }, 'Did you mean `tenantId`?'],
    ['ana', '`api.access`'],
    [true, '`api.access`'],
  ] as const) {
    grant = given
    lines.length = 0
    const answer = await get('/bus/api/access')
    expect([given, answer.statusCode, answer.json()]).toEqual([
      given,
      500,
      { statusCode: 500, code: 'BUS_HTTP_ERROR', message: 'The request failed; the log says why' },
    ])
    expect(lines.join('')).toContain(part)
  }
  grant = { by: 'ana', allow: 'read' }
  expect((await get('/bus/api/access')).statusCode).toBe(200)
})

test('with readOnly nobody changes anything, and everything is read', async () => {
  const opened = await openApiApp({ api: { readOnly: true } })
  for (const route of apiRoutes) {
    const { name, status } = await ask(opened, route, { 'x-allow': 'all,publishByHand' })
    expect([name, status === 403]).toEqual([
      name,
      (apiChanges as readonly (string | undefined)[]).includes(route.action),
    ])
  }
  const { actions } = (await opened.get('/bus/api/access')).json<{ actions: string[] }>()
  expect(actions).toEqual(apiReads)
})
