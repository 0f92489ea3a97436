import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { describe, expect, test } from 'vitest'
import { reasonOf } from '../../src/foundation/error-reason.ts'

/** As Drizzle's: its message lists the parameters. */
const wrapped = (cause: unknown): Error =>
  Object.assign(new Error('Failed query: select $1\nparams: secret', { cause }), { params: ['secret'] })

const dead = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:9'), { code: 'ECONNREFUSED' })

describe('the reason of a failure', () => {
  test.each<[string, unknown, string]>([
    ['an error alone', new Error('no'), 'no'],
    [
      'an error with a cause',
      new TypeError('fetch failed', { cause: dead }),
      'fetch failed, caused by connect ECONNREFUSED 127.0.0.1:9',
    ],
    [
      'a chain',
      new Error('a', { cause: new Error('b', { cause: new Error('c') }) }),
      'a, caused by b, caused by c',
    ],
    [
      'the addresses of a name',
      new TypeError('fetch failed', {
        cause: Object.assign(new AggregateError([dead, new Error('connect ::1')]), { code: 'ECONNREFUSED' }),
      }),
      'fetch failed, caused by connect ECONNREFUSED 127.0.0.1:9 and connect ::1',
    ],
    [
      'an AggregateError without a message alone',
      Object.assign(new AggregateError([dead, new Error('connect ::1')]), { code: 'ECONNREFUSED' }),
      'connect ECONNREFUSED 127.0.0.1:9 and connect ::1',
    ],
    [
      'a code that no message of an AggregateError names',
      new Error('a', {
        cause: Object.assign(new AggregateError([new Error('b')]), { code: 'EHOSTUNREACH' }),
      }),
      'a, caused by EHOSTUNREACH, caused by b',
    ],
    [
      'the causes of the errors of an AggregateError',
      new AggregateError([new TypeError('fetch failed', { cause: dead }), new Error('b')], 'all failed'),
      'all failed, caused by fetch failed, caused by connect ECONNREFUSED 127.0.0.1:9 and b',
    ],
    [
      'both the cause and the errors of an AggregateError',
      new AggregateError([new Error('b')], 'a', { cause: new Error('c') }),
      'a, caused by c and b',
    ],
    [
      'how many more errors an AggregateError has',
      new AggregateError([1, 2, 3, 4, 5, 6].map((n) => new Error(`no ${n}`))),
      'no 1 and no 2 and no 3 and no 4 and 2 more',
    ],
    [
      'both errors of a SuppressedError',
      Object.assign(new Error('the disposal failed'), { error: new Error('b'), suppressed: new Error('c') }),
      'the disposal failed, caused by b and c',
    ],
    [
      'where a connection led to',
      new Error('a', {
        cause: Object.assign(new Error('other side closed'), {
          code: 'UND_ERR_SOCKET',
          socket: { remoteAddress: '10.0.0.7', remotePort: 443 },
        }),
      }),
      'a, caused by other side closed (UND_ERR_SOCKET, 10.0.0.7:443)',
    ],
    [
      'no code that is a text of somebody',
      new Error('a', { cause: Object.assign(new Error('b'), { code: 'card 4242, Ada' }) }),
      'a, caused by b',
    ],
    ['an error without a message', new Error(''), ''],
    ['spaces as they are', new Error(' 1 '), ' 1 '],
    [
      'a code that the message does not name',
      new Error('a', { cause: Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' }) }),
      'a, caused by socket hang up (ECONNRESET)',
    ],
    ['a cause said already', new Error('a: b', { cause: new Error('b') }), 'a: b'],
    ['a cause that is a text', new Error('a', { cause: 'late' }), 'a, caused by late'],
    ['a text', 'late', 'late'],
    ['nothing', undefined, 'undefined'],
    [
      "Drizzle's wrapper",
      new Error('a', {
        cause: Object.assign(new Error('params: secret', { cause: new Error('refused') }), { params: [] }),
      }),
      'a, caused by refused',
    ],
    [
      'what PostgreSQL quotes',
      new Error('a', { cause: Object.assign(new Error('invalid input "secret"'), { code: '22P02' }) }),
      'a, caused by invalid input "…" (22P02)',
    ],
    [
      'what a server in another language quotes',
      new Error('a', {
        cause: Object.assign(new Error('ungültige Eingabesyntax für Typ integer: »secret«'), {
          code: '22P02',
        }),
      }),
      'a, caused by ungültige Eingabesyntax für Typ integer: "…" (22P02)',
    ],
    [
      'what PostgreSQL quotes, in the words of another library',
      new Error('Raw query failed. Message: `invalid input syntax for type integer: "secret"`'),
      'Raw query failed. Message: `invalid input syntax for type integer: "…"`',
    ],
    [
      "Drizzle's wrapper in an AggregateError, and in another one",
      new AggregateError([wrapped(wrapped(new Error('refused'))), wrapped(undefined)], 'a'),
      'a, caused by refused and the driver reported no reason',
    ],
    [
      'a password in a URL',
      new Error('a', { cause: new Error('cannot parse https://ada:hunter2@host/x') }),
      'a, caused by cannot parse https://…@host/x',
    ],
  ])('tells %s', (_, thrown, expected) => {
    expect(reasonOf(thrown)).toBe(expected)
  })

  test('is bounded, whatever the chain is like', () => {
    let deep = new Error('end')
    for (let i = 0; i < 1000; i += 1) deep = new Error(`cause ${i} ${'x'.repeat(10_000)}`, { cause: deep })
    const reason = reasonOf(new Error('a', { cause: deep }))
    expect(reason.length).toBeLessThanOrEqual(2100)
    // All that are told, the last one too.
    expect(reason.match(/caused by cause \d+ x+/g)).toHaveLength(8)
    expect(reasonOf(new Error('x'.repeat(1_000_000)))).toMatch(/^x{2000}… \(1000000 characters\)$/)
    expect(reasonOf(new Error('x'.repeat(1_000_000), { cause: dead }))).toMatch(
      /, caused by connect ECONNREFUSED 127\.0\.0\.1:9$/,
    )
    const circle = new Error('one')
    circle.cause = new Error('two', { cause: circle })
    expect(reasonOf(circle)).toBe('one, caused by two')
    const hostile = new Error('a')
    Object.defineProperty(hostile, 'cause', {
      get() {
        throw new Error('trap')
      },
    })
    expect(reasonOf(hostile)).toBe('a')
    expect(reasonOf(new Error('b', { cause: hostile }))).toBe('b, caused by a')
  })

  test.each([
    [
      'errors that is a proxy which throws',
      {
        errors: new Proxy([], {
          get: () => {
            throw new Error('trap')
          },
        }),
      },
    ],
    ['a message that is an object', { message: { secret: 1 } }],
    ['a code that is an object', { code: { secret: 1 } }],
    ['an address that is a text of somebody', { code: 'E', address: 'card 4242, Ada', port: 1 }],
    ['errors without end', { errors: Array.from({ length: 100_000 }, () => new Error('one')) }],
  ])('is told of an error with %s', (_, properties) => {
    const reason = reasonOf(new Error('a', { cause: Object.assign(new Error('b'), properties) }))
    expect(reason).toMatch(/^a, caused by (?:b|an object without a message)/)
    expect(reason).not.toMatch(/secret|Ada/)
  })

  test('says of a fetch that nobody listens, and where', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    const thrown: unknown = await fetch(`http://127.0.0.1:${port}/`).catch((error: unknown) => error)
    expect(reasonOf(thrown)).toBe(`fetch failed, caused by connect ECONNREFUSED 127.0.0.1:${port}`)
  })
})
