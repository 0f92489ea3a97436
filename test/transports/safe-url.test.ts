import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { createHttpCaller } from '../../src/transports/http/post.ts'
import { assertSafeUrl, type ResolveName } from '../../src/transports/http/safe-url.ts'

/** What tenants have tried, or may. None may be called. */
const hostile = [
  // This machine, in every spelling of its address.
  'https://127.0.0.1/',
  'https://127.1/',
  'https://2130706433/',
  'https://0x7f000001/',
  'https://0x7f.0.0.1/',
  'https://0177.0.0.1/',
  'https://017700000001/',
  'https://127.0.0.1./',
  'https://①②⑦.⓪.⓪.①/',
  'https://0/',
  'https://0.0.0.0/',
  'https://[::1]/',
  'https://[::]/',
  'https://[::ffff:127.0.0.1]/',
  'https://[::ffff:7f00:1]/',
  'https://[0:0:0:0:0:ffff:7f00:1]/',
  'https://[::127.0.0.1]/',
  'https://localhost/',
  'https://LOCALHOST./',
  'https://app.localhost/',
  // Networks that are not public.
  'https://10.0.0.1/',
  'https://172.16.0.1/',
  'https://172.31.255.255/',
  'https://192.168.1.1/',
  'https://100.64.0.1/',
  'https://198.18.0.1/',
  'https://224.0.0.1/',
  'https://255.255.255.255/',
  'https://[fc00::1]/',
  'https://[fd12:3456::1]/',
  'https://[fe80::1]/',
  'https://[ff02::1]/',
  // Clouds' metadata.
  'https://169.254.169.254/latest/meta-data/',
  'https://[fd00:ec2::254]/',
  'https://[::ffff:169.254.169.254]/',
  'https://metadata.google.internal/',
  // IPv4 inside IPv6.
  'https://[64:ff9b::7f00:1]/',
  'https://[64:ff9b:1::7f00:1]/',
  'https://[2002:7f00:1::]/',
  'https://[2001:0:7f00:1::]/',
  // Names that resolve inside a network alone.
  'https://postgres/',
  'https://redis.default.svc.cluster.local/',
  'https://intranet.corp/',
  // Protocols, credentials, ports, and texts that parsers read differently.
  'http://example.com/',
  'file:///etc/passwd',
  'gopher://example.com:6379/_FLUSHALL',
  'ftp://example.com/',
  'javascript:alert(1)',
  'https://user:password@example.com/',
  'https://example.com@127.0.0.1/',
  'https://example.com:22/',
  'https://example.com:5432/',
  'https://example.com:6379/',
  'https://exa\tmple.com/',
  'https://example.com\\@127.0.0.1/',
  ' https://example.com/',
  'https://',
  '//example.com/',
  `https://example.com/${'x'.repeat(2048)}`,
]

test.each(hostile)('%j is refused', (url) => {
  expect(() => assertSafeUrl(url)).toThrow(
    expect.objectContaining({ code: 'BUS_URL_NOT_ALLOWED', option: 'url' }),
  )
})

test.each([undefined, null, 1, {}, ['https://example.com/'], Symbol('url')])('%s is no URL', (url) => {
  expect(() => assertSafeUrl(url)).toThrow(expect.objectContaining({ code: 'BUS_URL_NOT_ALLOWED' }))
})

test.each([
  'https://example.com/',
  'https://example.com:8443/hook?token=1#f',
  'https://93.184.215.14/',
  'https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/',
  'https://bücher.example/',
])('%s is allowed', (url) => {
  expect(assertSafeUrl(url)).toBeInstanceOf(URL)
})

test.each([
  ['a text for allowPrivate', { allowPrivate: 'false' }],
  ['a text for allowHttp', { allowHttp: 'false' }],
  ['a port that is none', { ports: [443, 70_000] }],
  ['one port', { ports: 443 }],
])('%s is refused', (_, rules) => {
  expect(() => assertSafeUrl('https://example.com/', rules as never)).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_OPTION' }),
  )
})

test('a refusal names neither path nor credentials', () => {
  const message = messageOf(() => assertSafeUrl('https://user:hunter2@example.com/secret-path'))
  expect(message).not.toMatch(/hunter2|secret-path/)
})

test.each([
  ['http with allowHttp', 'http://example.com/', { allowHttp: true }],
  ['a port of its own', 'https://example.com:9000/', { ports: [9000] }],
  ['an inner host', 'http://127.0.0.1:3000/', { allowPrivate: true }],
])('%s is allowed', (_, url, rules) => {
  expect(assertSafeUrl(url, rules)).toBeInstanceOf(URL)
})

async function startServer(): Promise<{ port: number; requests: string[] }> {
  const requests: string[] = []
  const server = createServer((request, response) => {
    requests.push(request.url ?? '')
    if (request.url === '/redirect') response.writeHead(302, { location: '/secret' }).end()
    else response.writeHead(204).end()
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port, requests }
}

function callerWith(resolveName: ResolveName, allowPrivate = false) {
  const caller = createHttpCaller({ allowPrivate, maxSockets: 2, resolveName })
  onTestFinished(() => caller.close())
  return async (url: string) =>
    caller.post(new URL(url), {
      headers: {},
      body: Buffer.from('{}'),
      timeoutMs: 5000,
      signal: new AbortController().signal,
    })
}

/** Resolves a name to each list of addresses in turn, and to the last one from then on. */
function answers(...lists: readonly (readonly string[])[]): ResolveName {
  let count = 0
  return (_, callback) => {
    const addresses = lists[Math.min(count, lists.length - 1)] ?? []
    count += 1
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    )
  }
}

test.each([['127.0.0.1'], ['::1'], ['169.254.169.254'], ['::ffff:127.0.0.1']])(
  'a public name that resolves to %s is not called',
  async (address) => {
    const { port, requests } = await startServer()
    const post = callerWith(answers([address]))
    await expect(post(`http://rebind.example:${port}/`)).rejects.toMatchObject({
      code: 'BUS_URL_NOT_ALLOWED',
    })
    expect(requests).toEqual([])
  },
)

test('a name with one inner address among public ones is not called', async () => {
  const { port, requests } = await startServer()
  const post = callerWith(answers(['93.184.215.14', '127.0.0.1']))
  await expect(post(`http://mixed.example:${port}/`)).rejects.toMatchObject({ code: 'BUS_URL_NOT_ALLOWED' })
  expect(requests).toEqual([])
})

test('a name that changes its answer is checked at each connection', async () => {
  const { port, requests } = await startServer()
  const asked: string[] = []
  const rebind = answers(['93.184.215.14', '127.0.0.1'], ['127.0.0.1'])
  const post = callerWith((host, callback) => {
    asked.push(host)
    rebind(host, callback)
  })
  for (let n = 0; n < 3; n += 1)
    await expect(post(`http://changes.example:${port}/`)).rejects.toMatchObject({
      code: 'BUS_URL_NOT_ALLOWED',
    })
  expect(asked).toHaveLength(3)
  expect(requests).toEqual([])
})

test('a redirect is an answer, and not followed', async () => {
  const { port, requests } = await startServer()
  const post = callerWith(answers(['127.0.0.1']), true)
  expect(await post(`http://redirects.example:${port}/redirect`)).toMatchObject({ status: 302 })
  expect(requests).toEqual(['/redirect'])
})

function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    return String(error)
  }
  throw new Error('Expected it to throw')
}
