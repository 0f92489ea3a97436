import fc from 'fast-check'
import { expect, test } from 'vitest'
import { toLabelValue, writeFamilies } from '../../../src/telemetry/prometheus/text-format.ts'
import { parsePrometheusText } from '../../support/prometheus-text.ts'
import { seed } from '../../support/random.ts'

test('a label says whatever text it is given, as far as that can be printed', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), fc.string(), (one, other) => {
      const text = writeFamilies([
        { name: 'x', kind: 'gauge', help: 'a', samples: [{ labels: { one, other }, value: 1 }] },
      ])
      const [family] = parsePrometheusText(text)
      expect(family?.samples).toEqual([
        { name: 'x', labels: { one: toLabelValue(one), other: toLabelValue(other) }, value: 1 },
      ])
    }),
    { seed },
  )
})

test.each([
  ['plain', 'plain'],
  ['a "quoted" \\ one', 'a "quoted" \\ one'],
  ['注文.🎉', '注文.🎉'],
  ['two\nlines\u0000\u2028\u200B', 'two\uFFFDlines\uFFFD\uFFFD\uFFFD'],
  ['half \ud800', 'half \uFFFD'],
  ['🎉'.repeat(300), '🎉'.repeat(255)],
])('the value of %j is %j', (given, expected) => {
  expect(toLabelValue(given)).toBe(expected)
})

test('numbers are written as Prometheus reads them', () => {
  const values = [0, 1, 0.1 + 0.2, 1e21, 1e-9, -1, Infinity, -Infinity]
  const samples = values.map((value, n) => ({ labels: { n: String(n) }, value }))
  const [family] = parsePrometheusText(writeFamilies([{ name: 'x', kind: 'gauge', help: 'a', samples }]))
  expect(family?.samples.map(({ value }) => value)).toEqual(values)
})

test('a help of several lines stays one, and a family without series is left out', () => {
  const samples = [{ labels: {}, value: 1 }]
  expect(
    writeFamilies([
      { name: 'x', kind: 'gauge', help: 'a \\\nb', samples },
      { name: 'y', kind: 'gauge', help: 'a', samples: [] },
    ]),
  ).toBe('# HELP x a \\\\\\nb\n# TYPE x gauge\nx 1\n')
})

test.each([
  ['x 1\n', 'another family'],
  ['# HELP x a\nx 1\n', 'no TYPE'],
  ['# HELP x a\n# TYPE x gauge\nx{a="b" 1\n', 'not a series'],
  ['# HELP x a\n# TYPE x gauge\nx{a="b"} 1\nx{a="b"} 2\n', 'twice'],
  ['# HELP x a\n# TYPE x gauge\nx 1 \n', 'not a series'],
  ['# HELP x a\n# TYPE x gauge\nx one\n', 'not a series'],
  ['# HELP x a\n# TYPE x counter\nx 1\n', '_total'],
  ['# HELP x a\n# TYPE x gauge\nx{a="\\q"} 1\n', 'not a series'],
  ['# HELP x a\n# TYPE x gauge\nx 1', 'not ended'],
  ['# HELP x a\n# TYPE x histogram\nx_bucket{le="1"} 2\nx_bucket{le="+Inf"} 1\nx_sum 1\nx_count 1\n', 'grow'],
  ['# HELP x a\n# TYPE x histogram\nx_bucket{le="1"} 1\nx_sum 1\nx_count 1\n', 'no whole'],
])('the reader of these tests refuses %j', (text, reason) => {
  expect(() => parsePrometheusText(text)).toThrow(reason)
})
