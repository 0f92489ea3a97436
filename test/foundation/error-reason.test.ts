import { describe, expect, test } from 'vitest'
import { reasonOf } from '../../src/foundation/error-reason.ts'

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
      'fetch failed, caused by ECONNREFUSED, caused by connect ECONNREFUSED 127.0.0.1:9, caused by connect ::1',
    ],
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
    expect(reasonOf(new Error('a', { cause: deep })).length).toBeLessThan(5000)
    const circle = new Error('one')
    circle.cause = new Error('two', { cause: circle })
    expect(reasonOf(circle)).toBe('one, caused by two')
    const hostile = new Error('a')
    Object.defineProperty(hostile, 'cause', {
      get() {
        throw new Error('trap')
      },
    })
    expect(reasonOf(hostile, 'a')).toBe('a')
  })
})
