import { expect, test } from 'vitest'
import { packReceipts, type Receipt } from '../../../src/delivery/ledger/receipts.ts'

const start = Date.UTC(2026, 10, 29, 12)

function receiptAt(ms: number, n = 0): Receipt {
  const time = ms.toString(16).padStart(12, '0')
  const eventId = `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${n.toString(16).padStart(12, '0')}`
  return { eventId, attempts: 1, durationMs: 1, expired: false, erased: false }
}

const many = (count: number, ms = start): Receipt[] =>
  Array.from({ length: count }, (_, n) => receiptAt(ms, n))

test('receipts of the same ten seconds are packed, in order', () => {
  const receipts = many(50)
  expect(packReceipts(receipts.toReversed())).toEqual({ packed: [receipts], single: [] })
})

test('rows are of equal length, and none is longer than what is stored in place', () => {
  expect(packReceipts(many(100)).packed.map(({ length }) => length)).toEqual([50, 50])
  expect(packReceipts(many(91)).packed.map(({ length }) => length)).toEqual([46, 45])
  expect(packReceipts(many(1000)).packed.every(({ length }) => length <= 90)).toBe(true)
  expect(packReceipts(many(1000)).packed.flat()).toHaveLength(1000)
})

test('a row does not go beyond its ten seconds, so it does not go beyond its month either', () => {
  const midnight = Date.UTC(2026, 11, 1)
  const before = many(5, midnight - 1)
  const after = many(5, midnight)
  expect(packReceipts([...after, ...before])).toEqual({ packed: [before, after], single: [] })
})

test('a few that would take more space packed get rows of their own', () => {
  const few = [
    receiptAt(start),
    receiptAt(start + 20_000),
    receiptAt(start + 20_001),
    receiptAt(start + 20_002),
  ]
  expect(packReceipts(few)).toEqual({ packed: [], single: few })
  expect(packReceipts([])).toEqual({ packed: [], single: [] })
})
