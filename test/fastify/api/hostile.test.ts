import { expect, test } from 'vitest'
import type { ApiAction } from '../../../src/fastify/index.ts'
import type { Field } from '../../../src/http/fields.ts'
import { apiRoutes } from '../../../src/http/routes/all.ts'
import { openApiApp, type ApiApp } from './api-app.ts'

const id = '0195c2f4-7a3e-7c11-8f00-1d2e3f4a5b6c'
const everything = { 'x-allow': 'all,publishByHand' }

const open = async (): Promise<ApiApp> =>
  openApiApp({
    prepare: (bus) => bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} }),
  })

/** Bodies that would do something, if the subscription and the event were there. */
const bodies: Partial<Record<ApiAction, Record<string, unknown>>> = {
  'deadLetters.preview': { selection: { subscription: 'quick' } },
  'deadLetters.redrive': { selection: { subscription: 'quick' } },
  'deadLetters.discard': { selection: { subscription: 'quick' }, reason: 'x' },
  'deadLetters.redriveEdited': { payload: 1 },
  'replay.preview': { tenantId: 'acme', subscriptions: ['quick'] },
  replay: { tenantId: 'acme', subscriptions: ['quick'] },
  'subscriptions.setOptions': { options: { concurrency: 3 }, expiresInSeconds: 60 },
  'subscriptions.rename': { newName: 'other' },
  'blockedKeys.release': { subscription: 'quick', tenantId: 'acme', orderingKey: 'k' },
  'quarantine.preview': { selection: { receiver: 'quick' } },
  'quarantine.retry': { selection: { receiver: 'quick' } },
  'quarantine.discard': { selection: { receiver: 'quick' }, reason: 'x' },
  erase: { tenantId: 'acme', subject: 'customer' },
  'retention.setPartitionSpan': { span: 'month' },
  publishByHand: { event: { type: 'note', tenantId: 'acme', payload: 1 } },
}

const long = 'x'.repeat(200_000)
const nested = JSON.parse(`${'['.repeat(400)}1${']'.repeat(400)}`) as unknown

/** Values that no field of a kind takes. */
function wrongFor({ json }: Field<unknown>): readonly unknown[] {
  const { type, format, enum: words } = json
  const noTexts = [7, true, null, [], {}, ['x'], { toString: 'x' }, nested]
  if (words !== undefined) return [...noTexts, '', 'no such word', long, '\u0000', '__proto__', 'constructor']
  if (format === 'date-time')
    return [
      ...noTexts,
      '',
      'yesterday',
      '2026-11-28',
      '2026-13-01T00:00:00Z',
      '2026-02-01T25:00:00Z',
      '1969-01-01T00:00:00Z',
      long,
    ]
  if (format === 'uuid') return [...noTexts, '', 'x', `${id}0`, `${id}\u0000`, '\ud800', long]
  if (type === 'string') return [...noTexts, '\u0000', 'a\ud800b', long]
  if (type === 'integer') return ['x', '7', 1.5, -1, 1e300, null, [], {}, true]
  if (type === 'boolean') return ['true', 1, 0, null, [], {}]
  if (type === 'array')
    return [
      7,
      true,
      null,
      [],
      {},
      [7],
      [null],
      ['\u0000'],
      [['x']],
      nested,
      Array.from({ length: 20_000 }, () => 'x'),
    ]
  if (type === 'object') return [7, true, null, [], 'x', { nosuch: 1 }, { ['__proto__']: 1 }, nested]
  return []
}

/** What is wrong for the kind, and right for the field: keys that plain SQL may have published, for example. */
const isRight = (action: ApiAction | undefined, name: string, value: unknown): boolean =>
  ['blockedKeys.release', 'cancel'].includes(action ?? '') &&
  ['tenantId', 'orderingKey'].includes(name) &&
  value === long

function expectRefused(
  answer: { readonly statusCode: number; readonly body: string },
  about: readonly unknown[],
): void {
  const body = JSON.parse(answer.body) as Readonly<Record<string, unknown>>
  expect([...about, [400, 404, 413].includes(answer.statusCode), answer.statusCode, body['code']]).toEqual([
    ...about,
    true,
    answer.statusCode,
    expect.stringMatching(/^BUS_/),
  ])
  // Nobody needs the whole of it back.
  expect(answer.body.length).toBeLessThan(2000)
}

test('a value of a body that is none is refused, in every field of every route, before anything is written', async () => {
  const { bus, post, database } = await open()
  const written = async (): Promise<unknown> =>
    database.rows(`select (select count(*) from bus.events) as events, (select count(*) from bus.audit) as audit,
      (select count(*) from bus.operations) as operations, (select count(*) from bus.erasures) as erasures,
      (select jsonb_agg(to_jsonb(s) order by s.id) from bus.subscriptions s) as subscriptions`)
  const before = await written()
  let tried = 0
  for (const { action, method, url, body: fields = {} } of apiRoutes) {
    if (method !== 'POST' || action === undefined) continue
    const path = `/bus/api${url.replace(':id', id).replace(/:\w+/, 'quick')}`
    const base = bodies[action] ?? {}
    for (const [name, field] of Object.entries(fields)) {
      for (const value of wrongFor(field)) {
        if (isRight(action, name, value)) continue
        tried += 1
        expectRefused(await post(path, { ...base, [name]: value }, everything), [action, name, short(value)])
      }
      // Inside of an object with fields of its own.
      const { properties } = field.json as { readonly properties?: Readonly<Record<string, object>> }
      const inner = base[name] as object | undefined
      for (const [key, json] of Object.entries(properties ?? {}))
        for (const value of wrongFor({ json } as unknown as Field<unknown>)) {
          if (isRight(action, key, value)) continue
          tried += 1
          expectRefused(await post(path, { ...base, [name]: { ...inner, [key]: value } }, everything), [
            action,
            `${name}.${key}`,
            short(value),
          ])
        }
    }
    for (const value of [{ ...base, nosuch: 1 }, { ...base, by: 'eve' }, [base], 'text', 7, null, true])
      expectRefused(await post(path, JSON.stringify(value), everything), [action, 'the body', short(value)])
    for (const text of [
      '{',
      '{"a":1',
      'undefined',
      '{"__proto__":{"by":"eve"}}',
      '{"constructor":{"prototype":{}}}',
      `{"reason":9007199254740993}`,
      '['.repeat(100_000),
    ])
      expectRefused(await post(path, text, everything), [action, text.slice(0, 40)])
  }
  expect(tried).toBeGreaterThan(500)
  expect(await written()).toEqual(before)
  expect((await bus.subscriptions.get('quick')).state).toBe('active')
})

const short = (value: unknown): string => (JSON.stringify(value) ?? '').slice(0, 60)

test('a query that is none is refused, in every parameter of every route', async () => {
  const { get } = await open()
  let tried = 0
  for (const { action, url, query = {}, params = {} } of apiRoutes) {
    const path = `/bus/api${url.replace(':id', id).replace(/:\w+/, 'quick')}`
    for (const [name, { json, isList, isJson }] of Object.entries(query)) {
      const { type, format, enum: words } = json
      const wrong =
        words !== undefined || format !== undefined || type === 'integer' || type === 'boolean'
          ? [
              '',
              'x',
              '\u0000',
              '1e9',
              '-1',
              '1.5',
              'NaN',
              '[]',
              '__proto__',
              `' or true --`,
              'x'.repeat(8000),
            ]
          : isJson === true
            ? [
                '',
                'x',
                '[]',
                '7',
                'null',
                '{',
                '{"a":"\\u0000"}',
                '{"__proto__":1}',
                '{"n":9007199254740993}',
                `{"a":"${'x'.repeat(10_000)}"}`,
              ]
            : ['', '\u0000', 'x'.repeat(8000)]
      for (const value of wrong) {
        tried += 1
        const given = `${path}?${name}=${encodeURIComponent(value)}`
        expectRefused(await get(given), [action, name, value.slice(0, 40)])
      }
      if (isList !== true) expectRefused(await get(`${path}?${name}=a&${name}=b`), [action, name, 'twice'])
    }
    for (const strange of [
      'nosuch=1',
      '__proto__=1',
      'constructor=1',
      'limit[]=1',
      'by=eve',
      '%00=1',
      'toString=1',
    ]) {
      if (url === '/audit' && strange === 'by=eve') continue
      if (url === '/stats' && strange === 'by=eve') continue
      if (apiRoutes.find((route) => route.url === url && route.method === 'GET') === undefined) continue
      tried += 1
      expectRefused(await get(`${path}?${strange}`), [action, strange])
    }
    for (const name of Object.keys(params))
      for (const value of ['x%00', '%20', encodeURIComponent(`' or true --`), '__proto__', '..%2f..%2fetc'])
        if (apiRoutes.some((route) => route.url === url && route.method === 'GET')) {
          tried += 1
          const answer = await get(
            `/bus/api${url.replace(`:${name}`, value).replace(':id', id).replace(/:\w+/, 'quick')}`,
          )
          expectRefused(answer, [action, name, value])
        }
  }
  expect(tried).toBeGreaterThan(1000)
})

test('what is legal and strange is found, and changes nothing else', async () => {
  const { bus, get, post } = await open()
  const texts = [
    `' or true --`,
    'a,b',
    'a\\b',
    '{"a":1}',
    'ünï×',
    '\u202e',
    '😀',
    '%',
    '+ &=#',
    '__proto__',
    'constructor',
  ]
  for (const text of texts) {
    const { id: made } = (
      await post(
        '/bus/api/events',
        {
          event: {
            type: 'note',
            tenantId: text,
            payload: { [`k${text}`]: text },
            subject: text,
            eventId: text,
          },
        },
        { 'x-allow': 'publishByHand' },
      )
    ).json<{ id: string }>()
    const found = await get(
      `/bus/api/events?${new URLSearchParams({ tenantId: text, subject: text, eventId: text }).toString()}`,
    )
    expect([text, found.json()]).toMatchObject([
      text,
      { events: [{ id: made, payload: { [`k${text}`]: text } }] },
    ])
    expect((await bus.events.get(made))?.payload).toEqual({ [`k${text}`]: text })
  }
  const listed = await get(`/bus/api/events?type=${encodeURIComponent('a\\,b')},note&limit=1`)
  expect(listed.json<{ events: object[] }>().events).toHaveLength(1)
})
