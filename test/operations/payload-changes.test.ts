import { expect, test } from 'vitest'
import { changesBetween } from '../../src/operations/dead-letters/payload-changes.ts'

const shown = (stored: unknown) => ({ stored, shown: stored })

test('the place of a change is bounded, however long the names in a payload are', () => {
  const name = 'x'.repeat(100_000)
  const inside = (value: number) =>
    shown({
      [name]: Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`f${i}`, value])),
      short: value,
    })
  const changes = changesBetween(inside(1), inside(2), 'payload')
  expect(changes).toHaveLength(100)
  for (const { path } of changes) {
    expect(path).toHaveLength(1000)
    expect(path).toMatch(/^payload\.x+…$/)
  }
  expect(changesBetween(shown({ a: { b: [1] } }), shown({ a: { b: [2] } }), 'payload')).toEqual([
    { path: 'payload.a.b.0', what: 'changed' },
  ])
})
