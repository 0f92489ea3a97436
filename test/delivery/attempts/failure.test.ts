import { expect, test } from 'vitest'
import { describeFailure } from '../../../src/delivery/attempts/failure.ts'

const url = 'https://ada:hunter2@provider.example/charge'
const shown = 'https://…@provider.example/charge'

test.each([
  ['an error', new Error(`request to ${url} failed`), `request to ${shown} failed`],
  ['a text', `request to ${url} failed`, `request to ${shown} failed`],
  ['an object', { message: `request to ${url} failed` }, `request to ${shown} failed`],
  [
    'an error with a cause',
    new Error('the charge failed', { cause: new Error(`request to ${url} failed`) }),
    `the charge failed, caused by request to ${shown} failed`,
  ],
  [
    'an error whose cause is a text',
    new Error('the charge failed', { cause: `request to ${url} failed` }),
    `the charge failed, caused by request to ${shown} failed`,
  ],
])('user and password of a URL are kept out of what is stored of %s', (_, thrown, message) => {
  const failure = describeFailure(1, thrown)
  expect(failure.message).toBe(message)
  expect(JSON.stringify(failure)).not.toContain('hunter2')
})

test('the stack names the place, without user and password', () => {
  const { stack = '' } = describeFailure(1, new Error(`request to ${url} failed`))
  expect(stack).toContain(`Error: request to ${shown} failed`)
  expect(stack).toContain('failure.test.ts')
})
