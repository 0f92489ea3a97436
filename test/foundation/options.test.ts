import { expect, test } from 'vitest'
import { booleanOption, integerOption } from '../../src/foundation/options.ts'
import { resolveMetrics } from '../../src/telemetry/prometheus/metrics-option.ts'

const range = { min: 1, max: 10, default: 5 }

test('an option that is left out has its default', () => {
  expect(integerOption('rate', undefined, range)).toBe(5)
  expect(booleanOption('dryRun', undefined, true)).toBe(true)
  expect(resolveMetrics(undefined)).toMatchObject({ isOn: false })
})

test.each([null, '', '5', Number.NaN, 1.5, 0, 11, [], true])(
  'a number is not %j, which is not left out either',
  (given) => {
    expect(() => integerOption('rate', given, range)).toThrow(
      expect.objectContaining({ code: 'BUS_INVALID_OPTION', option: 'rate' }) as Error,
    )
  },
)

test.each([null, '', 'true', 0, 1, {}])('a flag is not %j, which is not left out either', (given) => {
  expect(() => booleanOption('dryRun', given, false)).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_OPTION', option: 'dryRun' }) as Error,
  )
})

test('null does not switch metrics on', () => {
  expect(() => resolveMetrics(null as never)).toThrow('Expected `metrics` to be like { database, tenants }')
})
