import { expect, test } from 'vitest'
import { stackOf } from '../../src/foundation/error-stack.ts'

test('a stack has the frames of an error and of its causes', () => {
  const stack = stackOf(new TypeError('fetch failed', { cause: new RangeError('refused') }), 4000)
  expect(stack).toMatch(/^TypeError: fetch failed\n +at .*error-stack\.test\.ts/)
  expect(stack).toMatch(/\ncaused by RangeError: refused\n +at .*error-stack\.test\.ts/)
})

test('a stack tells neither parameters, nor what PostgreSQL quotes, nor passwords', () => {
  const invalid = Object.assign(new Error('invalid input syntax for type date: "secret"'), { code: '22007' })
  const wrapped = Object.assign(new Error('Failed query\nparams: secret', { cause: invalid }), { params: [] })
  const changed = new Error('params: secret')
  changed.message = 'changed later'
  const url = new Error('GET https://ada:secret@host/x')
  for (const error of [wrapped, invalid, changed, url, new Error('a', { cause: wrapped })]) {
    const stack = stackOf(error, 4000)
    expect(stack).toContain('error-stack.test.ts')
    expect(stack).not.toContain('secret')
  }
  expect(stackOf(changed, 4000)).toContain('Error: changed later')
})

test('a stack is bounded, and there may be none', () => {
  let deep = new Error('end')
  for (let i = 0; i < 100; i += 1) deep = new Error('x'.repeat(10_000), { cause: deep })
  expect(stackOf(deep, 1000)?.length).toBe(1000)
  const bare = new Error('bare')
  delete (bare as { stack?: string }).stack
  expect(stackOf(bare, 1000)).toBeUndefined()
})
