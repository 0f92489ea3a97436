import { expect, test } from 'vitest'
import { openApiApp, type ApiApp } from './api-app.ts'

const url = '/bus/api/subscriptions/quick/pause'

const open = async (server = {}): Promise<ApiApp> =>
  openApiApp({
    server,
    prepare: (bus) => bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} }),
  })

const isPaused = async ({ bus }: ApiApp): Promise<boolean> =>
  (await bus.subscriptions.get('quick')).state === 'paused'

test('a change that a page of another origin sends is refused, whatever it says besides', async () => {
  const opened = await open()
  const refused: readonly Readonly<Record<string, string>>[] = [
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'cross-site', origin: 'http://localhost:80' },
    { 'sec-fetch-site': '' },
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: '' },
    { origin: 'http://localhost:81' },
    { origin: 'http://ops.example', host: 'ops.example:443' },
    { origin: 'file://', host: 'ops.example' },
    { origin: 'not an origin', host: 'ops.example' },
    { origin: 'http://localhost.evil.example' },
    { origin: 'http://evil.example@localhost:80', host: 'evil.example' },
    { origin: 'https://ops.example', host: 'internal:3000', 'x-forwarded-host': 'ops.example' },
  ]
  for (const headers of refused) {
    const { statusCode, body } = await opened.post(url, {}, headers)
    expect([headers, statusCode, (JSON.parse(body) as { code: string }).code]).toEqual([
      headers,
      403,
      'BUS_HTTP_CROSS_ORIGIN',
    ])
  }
  expect(await isPaused(opened)).toBe(false)
  // Reads change nothing: browsers keep their answers from pages of other origins.
  expect((await opened.get('/bus/api/subscriptions', { origin: 'https://evil.example' })).statusCode).toBe(
    200,
  )
})

test('a change from the same origin, or from no page, is made', async () => {
  const opened = await open()
  const accepted: readonly Readonly<Record<string, string>>[] = [
    {},
    { 'sec-fetch-site': 'same-origin' },
    // A person who typed the address, or a bookmark.
    { 'sec-fetch-site': 'none' },
    // A proxy has changed the host; the browser has compared what it saw.
    { 'sec-fetch-site': 'same-origin', origin: 'https://ops.example', host: 'internal:3000' },
    { origin: 'http://localhost:80', host: 'localhost' },
    { origin: 'http://LOCALHOST:3000', host: 'localhost:3000' },
    { origin: 'https://ops.example', host: 'OPS.example' },
    // Some proxies say the port of the scheme.
    { origin: 'https://ops.example', host: 'ops.example:443' },
    { origin: 'http://ops.example', host: 'ops.example:80' },
    { origin: 'http://[::1]:3000', host: '[::1]:3000' },
  ]
  for (const headers of accepted) {
    const paused = await opened.post(url, {}, headers)
    expect([headers, paused.statusCode, paused.json()]).toEqual([headers, 200, { changed: true }])
    await opened.bus.subscriptions.resume('quick')
  }
})

test('behind a proxy that changes the host, trustProxy has the app know the one that the browser saw', async () => {
  const opened = await open({ trustProxy: true })
  const headers = { origin: 'https://ops.example', host: 'internal:3000', 'x-forwarded-host': 'ops.example' }
  expect((await opened.post(url, {}, headers)).statusCode).toBe(200)
  expect((await opened.post(url, {}, { ...headers, 'x-forwarded-host': 'other.example' })).statusCode).toBe(
    403,
  )
})

test.each([
  [undefined, undefined],
  ['text/plain', '{}'],
  ['application/x-www-form-urlencoded', 'reason=x'],
  ['application/jsonp', '{}'],
  ['multipart/form-data; boundary=x', '--x--'],
])('what a form may send without asking changes nothing: %s', async (type, payload) => {
  const opened = await open()
  const { statusCode, body } = await opened.app.inject({
    method: 'POST',
    url,
    headers: { 'x-user': 'ana', ...(type === undefined ? {} : { 'content-type': type }) },
    ...(payload === undefined ? {} : { payload }),
  })
  expect([statusCode, JSON.parse(body)]).toEqual([
    415,
    {
      statusCode: 415,
      code: 'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
      message: 'Expected a body of the content type application/json',
    },
  ])
  expect(await isPaused(opened)).toBe(false)
})
