import { expect, test } from 'vitest'
import { checkOrder, type HistoryLine } from '../support/order-history.ts'

function history(...lines: readonly string[]): HistoryLine[] {
  return lines.map((line, at) => {
    const [what = '', key = '', number = ''] = line.split(' ')
    return { at: BigInt(at), what: what as HistoryLine['what'], key, number: Number(number) }
  })
}

const good = [
  'begins a 0',
  'begins b 0',
  'fails a 0',
  'succeeds b 0',
  'begins a 0',
  'succeeds a 0',
  'begins a 1',
  'succeeds a 1',
  'begins b 1',
  'dies b 1',
  'begins b 1',
  'succeeds b 1',
]
const clean = { outOfOrder: 0, atOnce: 0, doubled: 0, missing: 0 }

test('the order checker finds nothing wrong where nothing is', () => {
  expect(checkOrder(history(...good), ['a', 'b'], 2)).toEqual({ ...clean, failedAttempts: 2 })
})

test.each([
  ['an event that is missing at the end', good.slice(0, -2), { missing: 1 }],
  ['a key of which nothing ran', good.filter((line) => !line.includes(' b ')), { missing: 2 }],
  [
    'an event that ran before its predecessor',
    ['begins a 1', 'succeeds a 1', 'begins a 0', 'succeeds a 0'],
    { outOfOrder: 1, doubled: 1 },
  ],
  [
    'an event that ran although its predecessor failed',
    ['begins a 0', 'fails a 0', 'begins a 1', 'succeeds a 1'],
    { outOfOrder: 1 },
  ],
  ['an event that ran again', [...good, 'begins a 1', 'succeeds a 1'], { doubled: 1 }],
  [
    'two of a key at once',
    ['begins a 0', 'begins a 0', 'succeeds a 0', 'succeeds a 0', 'begins a 1', 'succeeds a 1'],
    { atOnce: 1 },
  ],
])('the order checker finds %s', (what, lines, findings) => {
  const keys =
    lines.some((line) => line.includes(' b ')) || what.startsWith('a key of which') ? ['a', 'b'] : ['a']
  expect(checkOrder(history(...lines), keys, 2)).toMatchObject({ ...clean, ...findings })
})
