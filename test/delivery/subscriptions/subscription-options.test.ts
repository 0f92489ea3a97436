import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents } from '../../../src/index.ts'
import { resolveSubscription, type Subscription } from '../../../src/delivery/subscriptions/subscription.ts'
import type { AnySubscriptionOptions } from '../../../src/delivery/subscriptions/subscription-options.ts'
import { refusalOf } from '../../foundation/refusal.ts'
import { deadLetterQueueName, queueName } from '../../../src/delivery/jobs/queues.ts'

const catalogue = defineEvents({
  'payment.paid': { schema: z.unknown() },
  'payment.refunded': { schema: z.unknown() },
})

const handler = (): void => {}

/** Past the types, as a caller without them would. */
function resolve(options: unknown): Subscription {
  return resolveSubscription(options as AnySubscriptionOptions, catalogue)
}

const resolveWith = (options: Readonly<Record<string, unknown>>): Subscription =>
  resolve({ name: 'open-case', events: ['payment.paid'], handler, ...options })

async function refusalWith(
  options: Readonly<Record<string, unknown>>,
  code = 'BUS_INVALID_OPTION',
): Promise<string> {
  const error = await refusalOf(() => resolveWith(options))
  expect(error).toMatchObject({ code, name: 'ConfigurationError', retryable: false })
  return error.message
}

describe('defaults', () => {
  const defaults = {
    name: 'open-case',
    patterns: ['payment.paid'],
    where: undefined,
    mode: 'at-least-once',
    concurrency: 10,
    batchSize: 100,
    timeoutSeconds: 60,
    heartbeatSeconds: 30,
    retry: { maxAttempts: 16, delaySeconds: 1, backoff: true, maxDelaySeconds: 600 },
    circuitBreaker: { windowSize: 20, failureRatio: 0.9, probeSeconds: 5, maxProbeSeconds: 300 },
  }

  test('are in place where nothing else is said', () => {
    expect(resolveWith({})).toMatchObject(defaults)
    expect(resolveWith({ retry: {} })).toMatchObject(defaults)
  })

  test('are in place where undefined is given', () => {
    const unsaid = {
      where: undefined,
      mode: undefined,
      concurrency: undefined,
      batchSize: undefined,
      ordered: undefined,
      onKeyFailure: undefined,
      timeoutSeconds: undefined,
      heartbeatSeconds: undefined,
    }
    const retry = {
      maxAttempts: undefined,
      delaySeconds: undefined,
      backoff: undefined,
      maxDelaySeconds: undefined,
    }
    expect(resolveWith({ ...unsaid, retry: undefined })).toMatchObject(defaults)
    expect(resolveWith({ ...unsaid, retry })).toMatchObject(defaults)
  })

  test('are what may also be said', () => {
    expect(resolveWith({ mode: 'at-least-once' })).toMatchObject(defaults)
  })

  test('the mode may be exactly-once', () => {
    expect(resolveWith({ mode: 'exactly-once' }).mode).toBe('exactly-once')
  })

  test('are not mixed into the object given, and what comes back is frozen', () => {
    const options = Object.freeze({
      name: 'a',
      events: Object.freeze(['**']),
      handler,
      retry: Object.freeze({}),
    })
    const subscription = resolve(options)
    expect(Object.keys(options)).toEqual(['name', 'events', 'handler', 'retry'])
    expect([subscription, subscription.retry, subscription.patterns].every(Object.isFrozen)).toBe(true)
    expect(subscription.handler).toBe(handler)
  })
})

describe('whole numbers', () => {
  const ranges: readonly (readonly [option: string, min: number, max: number])[] = [
    ['concurrency', 1, 1000],
    ['tenantConcurrency', 1, 1000],
    ['batchSize', 1, 100],
    ['timeoutSeconds', 1, 3600],
    ['heartbeatSeconds', 10, 3600],
    ['retry.maxAttempts', 1, 100],
    ['retry.delaySeconds', 0, 86_400],
    ['retry.maxDelaySeconds', 1, 604_800],
    ['circuitBreaker.windowSize', 5, 1000],
    ['circuitBreaker.probeSeconds', 1, 86_400],
    ['circuitBreaker.maxProbeSeconds', 5, 86_400],
  ]

  const given = (option: string, value: unknown): Record<string, unknown> => {
    const [group = '', name] = option.split('.')
    return name === undefined ? { [group]: value } : { [group]: { [name]: value } }
  }

  test.each(ranges)('%s is %i to %i', (option, min, max) => {
    for (const value of [min, max])
      expect(resolveWith(given(option, value))).toMatchObject(given(option, value))
  })

  test.each(ranges)('%s is nothing but an integer from %i to %i', async (option, min, max) => {
    for (const value of [
      min - 1,
      max + 1,
      min + 0.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      '5',
      5n,
      true,
      [5],
      {},
    ]) {
      expect(await refusalWith(given(option, value))).toContain(
        `Expected \`${option}\` to be an integer of at least ${min} and at most ${max}, got `,
      )
    }
  })
})

describe('name', () => {
  test.each([
    'a',
    '_',
    '0',
    'open-case',
    'open_case.v2',
    'a..b',
    'dead',
    'a.dead.b',
    'a.dead-',
    'A',
    'a'.repeat(100),
  ])('may be %s', (name) => {
    expect(resolveWith({ name }).name).toBe(name)
  })

  test.each<[unknown]>([
    [undefined],
    [null],
    [''],
    ['-a'],
    ['.a'],
    ['a.'],
    ['a b'],
    ['a/b'],
    ['ä'],
    ['a\n'],
    ['a*'],
    ['a.dead'],
    ['.dead'],
    ['a'.repeat(101)],
    [5],
    [['a']],
  ])('is not %j', async (name) => {
    expect(await refusalWith({ name })).toContain('Expected `name` to be 1 to 100 letters, digits,')
  })

  test('gives the queues their names, which cannot meet another subscription’s', () => {
    expect(queueName('open-case')).toBe('bus.open-case')
    expect(deadLetterQueueName('open-case')).toBe('bus.open-case.dead')
  })
})

describe('events', () => {
  test('may be names, patterns, and patterns that match nothing yet', () => {
    const events = ['payment.paid', 'payment.*', '**', 'order.**']
    expect(resolveWith({ events }).patterns).toEqual(events)
  })

  test('count once, however often they are named', () => {
    expect(resolveWith({ events: ['payment.paid', '**', 'payment.paid', '**'] }).patterns).toEqual([
      'payment.paid',
      '**',
    ])
  })

  test('are copied: a list changed later changes nothing', () => {
    const events = ['payment.paid']
    const subscription = resolveWith({ events })
    events.push('**')
    expect(subscription.patterns).toEqual(['payment.paid'])
  })

  test.each<[unknown]>([
    [undefined],
    [null],
    ['payment.paid'],
    [[]],
    [{ 0: 'payment.paid', length: 1 }],
    [new Set(['payment.paid'])],
    [Array.from({ length: 101 }, (_, i) => `a${i}.*`)],
  ])('are a list of 1 to 100, not %j', async (events) => {
    expect(await refusalWith({ events }, 'BUS_INVALID_PATTERN')).toBe(
      'Expected `events` of `open-case` to be a list of 1 to 100 event names or patterns',
    )
  })

  test('may be as many as 100', () => {
    expect(resolveWith({ events: Array.from({ length: 100 }, (_, i) => `a${i}.*`) }).patterns).toHaveLength(
      100,
    )
  })

  test.each<[unknown]>([['a**'], ['**.a'], ['a..*'], [5], [undefined], [null], [['payment.paid']]])(
    'have no member %j',
    async (pattern) => {
      expect(await refusalWith({ events: ['payment.paid', pattern] }, 'BUS_INVALID_PATTERN')).toContain(
        'Expected an event name or a pattern like',
      )
    },
  )

  test('have no holes', async () => {
    const events = ['payment.paid']
    events[2] = 'payment.refunded'
    expect(await refusalWith({ events }, 'BUS_INVALID_PATTERN')).toContain('got undefined')
  })

  test.each(['payment.payed', 'toString', 'constructor', '__proto__', 'payment'])(
    'have no plain name that the catalogue does not have: %s',
    async (name) => {
      expect(await refusalWith({ events: [name] }, 'BUS_INVALID_PATTERN')).toBe(
        `The subscription \`open-case\` names "${name}", which the catalogue does not contain. Declare it, or use a pattern`,
      )
    },
  )
})

describe('where', () => {
  test('may be a text of up to 2,000 characters', () => {
    for (const where of ['$.amountCents > 1000', `$.name == "${'☃'.repeat(1900)}"`, `$.${'x'.repeat(1998)}`])
      expect(resolveWith({ where }).where).toBe(where)
  })

  test.each<[unknown]>([
    [''],
    ['  \n'],
    ['x'.repeat(2001)],
    ['$.a == "\u0000"'],
    ['$.a == "\ud800"'],
    [null],
    [5],
    [{}],
    [() => true],
  ])('is not %j', async (where) => {
    expect(await refusalWith({ where }, 'BUS_INVALID_WHERE')).toContain('to be a SQL/JSON path predicate')
  })
})

describe('the other options', () => {
  test.each<[string, unknown]>([
    ['mode', 'exactly-twice'],
    ['mode', null],
    ['mode', true],
    ['handler', undefined],
    ['handler', null],
    ['handler', 'handle'],
    ['handler', { handle: handler }],
    ['circuitBreaker', null],
    ['circuitBreaker', true],
    ['circuitBreaker.failureRatio', 0.4],
    ['circuitBreaker.failureRatio', '1'],
    ['circuitBreaker.failureRatio', Number.NaN],
    ['retry', null],
    ['retry', 5],
    ['retry', false],
    ['retry', []],
    ['retry', 'often'],
    ['retry.backoff', 'exponential'],
    ['retry.backoff', 1],
    ['ordered', 'yes'],
    ['ordered', 1],
    ['ordered', null],
    ['concurrency', null],
    ['tenantConcurrency', null],
    ['timeoutSeconds', null],
    ['lagLimitSeconds', null],
    ['retry.maxAttempts', null],
    ['retry.backoff', null],
    ['circuitBreaker.windowSize', null],
    ['circuitBreaker.failureRatio', null],
  ])('%s is not %j', async (option, value) => {
    const [group = '', name] = option.split('.')
    expect(await refusalWith({ [group]: name === undefined ? value : { [name]: value } })).toContain(
      `Expected \`${option}\``,
    )
  })

  test('ordered may be true or false, and blocks a key unless told otherwise', () => {
    expect(resolveWith({ ordered: true })).toMatchObject({ ordered: true, onKeyFailure: 'block' })
    for (const onKeyFailure of ['block', 'park', 'skip'])
      expect(resolveWith({ ordered: true, onKeyFailure })).toMatchObject({ onKeyFailure })
    expect(resolveWith({ ordered: false })).not.toHaveProperty('ordered')
    expect(resolveWith({ ordered: false })).not.toHaveProperty('onKeyFailure')
  })

  test('onKeyFailure is one of three rules, and only for an ordered subscription', async () => {
    expect(await refusalWith({ ordered: true, onKeyFailure: 'retry' })).toBe(
      "Expected `onKeyFailure` of `open-case` to be 'block', 'park' or 'skip', got \"retry\"",
    )
    expect(await refusalWith({ ordered: true, onKeyFailure: null })).toContain('got null')
    expect(await refusalWith({ onKeyFailure: 'block' })).toBe(
      'Expected `onKeyFailure` of `open-case` only together with `ordered: true`',
    )
    expect(await refusalWith({ ordered: false, onKeyFailure: 'skip' })).toContain('only together with')
  })

  test('retry.backoff may be true or false', () => {
    expect(resolveWith({ retry: { backoff: false } }).retry.backoff).toBe(false)
    expect(resolveWith({ retry: { backoff: true } }).retry.backoff).toBe(true)
  })

  test.each<[string, string]>([
    ['concurency', 'concurrency'],
    ['timeoutSecond', 'timeoutSeconds'],
    ['batchsize', 'batchSize'],
    ['event', 'events'],
    ['handle', 'handler'],
  ])('are known by name: for %s, %s was probably meant', async (typo, meant) => {
    expect(await refusalWith({ [typo]: 5 })).toBe(
      `Unknown option \`${typo}\` in a subscription. Did you mean \`${meant}\`?`,
    )
  })

  test('are known by name inside retry too', async () => {
    expect(await refusalWith({ retry: { maxAttempt: 3 } })).toBe(
      'Unknown option `maxAttempt` in `retry`. Did you mean `maxAttempts`?',
    )
    expect(await refusalWith({ retry: { limit: 3 } })).toContain(
      'Known are: maxAttempts, delaySeconds, backoff',
    )
  })

  test('are unknown also where they are undefined', async () => {
    expect(await refusalWith({ onFailure: undefined })).toContain('Unknown option `onFailure`')
  })

  test.each<[unknown]>([[undefined], [null], ['open-case'], [5], [handler]])(
    'are an object, not %j',
    async (options) => {
      expect(await refusalOf(() => resolve(options))).toMatchObject({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringContaining('Expected the options of a subscription, got ') as string,
      })
    },
  )
})

describe('options that depend on each other', () => {
  test('maxDelaySeconds is at least delaySeconds', async () => {
    expect(await refusalWith({ retry: { delaySeconds: 60, maxDelaySeconds: 59 } })).toBe(
      'Expected `retry.maxDelaySeconds` to be at least `retry.delaySeconds`, got 59 and 60',
    )
    expect(resolveWith({ retry: { delaySeconds: 60, maxDelaySeconds: 60 } }).retry).toMatchObject({
      maxDelaySeconds: 60,
    })
    expect(await refusalWith({ retry: { maxDelaySeconds: 1, delaySeconds: 2 } })).toContain('got 1 and 2')
  })

  test('maxDelaySeconds follows a delaySeconds above its default', () => {
    expect(resolveWith({ retry: { delaySeconds: 3600 } }).retry).toMatchObject({ maxDelaySeconds: 3600 })
    expect(resolveWith({ retry: { delaySeconds: 86_400 } }).retry).toMatchObject({ maxDelaySeconds: 86_400 })
    expect(resolveWith({ retry: { delaySeconds: 2 } }).retry).toMatchObject({ maxDelaySeconds: 600 })
  })
})

describe('a schedule', () => {
  test('says how many attempts there are', () => {
    expect(resolveWith({ retry: { delays: [5, 300, 1800] } })).toMatchObject({
      retry: {
        maxAttempts: 4,
        delaySeconds: 5,
        backoff: false,
        maxDelaySeconds: 1800,
        delays: [5, 300, 1800],
      },
    })
  })

  test('is a copy of what was given', () => {
    const delays = [5, 300]
    const { retry } = resolveWith({ retry: { delays } })
    delays[0] = 7
    expect(retry.delays).toEqual([5, 300])
  })

  test.each([
    [{ delays: [5], maxAttempts: 3 }, 'maxAttempts'],
    [{ delays: [5], delaySeconds: 3 }, 'delaySeconds'],
    [{ delays: [5], backoff: false }, 'backoff'],
    [{ delays: [5], maxDelaySeconds: 9 }, 'maxDelaySeconds'],
  ])('is not combined with the formula: %o', async (retry, other) => {
    expect(await refusalWith({ retry })).toContain(`either \`delays\` or \`${other}\``)
  })

  test.each([[[]], [[-1]], [[1.5]], [['5']], ['5'], [5], [null], [[604_801]], [[Number.NaN]]])(
    'that is not a list of delays is refused: %o',
    async (delays) => {
      expect(await refusalWith({ retry: { delays } })).toContain('`retry.delays`')
    },
  )
})
