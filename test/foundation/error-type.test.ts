import { expect, test } from 'vitest'
import { errorTypeOf } from '../../src/foundation/error-type.ts'
import { DeliveryError, NonRetryableError, RetryAfterError } from '../../src/index.ts'

class CardDeclined extends NonRetryableError {}
class ProviderDown extends Error {}

const named = (name: string, rest: object = {}): Error => Object.assign(new Error('m'), { name }, rest)
const coded = (code: unknown): Error => Object.assign(new Error('m'), { code })

test.each<[string, unknown, string]>([
  ['an error of this package', new DeliveryError('BUS_HANDLER_TIMEOUT', 'm'), 'BUS_HANDLER_TIMEOUT'],
  ['a built-in error', new TypeError('m'), 'TypeError'],
  ['a class', new ProviderDown('m'), 'ProviderDown'],
  ['a name', named('PaymentError'), 'PaymentError'],
  ['a plain error', new Error('m'), 'Error'],
  ['an error of Node', coded('ECONNREFUSED'), 'ECONNREFUSED'],
  ['an error of node-postgres', named('error', { code: '23505' }), '23505'],
  ['a class with a code', Object.assign(new ProviderDown('m'), { code: 'E_DOWN' }), 'ProviderDown'],
  ['a code that is no code', coded('payment 42 failed'), 'Error'],
  ['a number as a code', coded(42), 'Error'],
  ['a verdict', new NonRetryableError('m'), 'BUS_NON_RETRYABLE'],
  ['a verdict with a cause', new NonRetryableError('m', { cause: new TypeError('m') }), 'TypeError'],
  ['a delay with a cause', new RetryAfterError(1, 'm', { cause: coded('ETIMEDOUT') }), 'ETIMEDOUT'],
  ['a class that is a verdict', new CardDeclined('m'), 'CardDeclined'],
  [
    "Drizzle's wrapper",
    Object.assign(new Error('Failed query', { cause: named('error', { code: '42P01' }) }), { params: [] }),
    '42P01',
  ],
  ['a name with a message in it', named('payment 42 failed'), '_OTHER'],
  ['an empty name', named(''), '_OTHER'],
  ['a name of a megabyte', named('x'.repeat(1_000_000)), '_OTHER'],
  ['a text', 'm', '_OTHER'],
  ['nothing', undefined, '_OTHER'],
  ['an object', { name: 'E', message: 'm' }, '_OTHER'],
])('%s has a type of its own', (_, thrown, type) => {
  expect(errorTypeOf(thrown)).toBe(type)
})

test('an error that throws when it is read has a type', () => {
  const hostile = new Error('m')
  for (const name of ['name', 'code', 'cause'])
    Object.defineProperty(hostile, name, {
      get() {
        throw new Error('no')
      },
    })
  expect(errorTypeOf(hostile)).toBe('_OTHER')
})

test('errors that cause each other have a type', () => {
  const [a, b] = [new NonRetryableError('a'), new NonRetryableError('b')]
  Object.assign(a, { cause: b })
  Object.assign(b, { cause: a })
  expect(errorTypeOf(a)).toBe('BUS_NON_RETRYABLE')
})
