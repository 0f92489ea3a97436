import { expect, test } from 'vitest'
import { fingerprintOf } from '../../../src/delivery/ledger/failures.ts'

const of = (message: string, name = 'Error', code?: string): string =>
  fingerprintOf({ name, message, ...(code === undefined ? {} : { code }) })

test.each([
  ['account 17 is unknown', 'account 4711 is unknown'],
  ['no row "a"', 'no row "b"'],
  ["can't find 'x' at 10.0.0.1:5432", "can't find 'y' at 10.0.0.2:5433"],
  ['event 019a2279-8604-70ad-bda8-b7b51b3cd606 failed', 'event 019a2279-8604-70f4-906b-f42f7ad6dab1 failed'],
  ['hash deadbeef0123 differs', 'hash 0123deadbeef differs'],
])('%j and %j are errors of one kind', (a, b) => {
  expect(of(a)).toBe(of(b))
})

test.each([
  [of('refused'), of('denied')],
  [of('refused', 'TypeError'), of('refused', 'RangeError')],
  [of('refused', 'Error', 'E_A'), of('refused', 'Error', 'E_B')],
  [of('refused', 'Error', 'E_A'), of('refused')],
])('errors of two kinds have two fingerprints', (a, b) => {
  expect(a).not.toBe(b)
  expect(a).toMatch(/^[0-9a-f]{16}$/)
})
