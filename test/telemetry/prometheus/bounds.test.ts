import { expect, test } from 'vitest'
import { bounds } from '../../../src/telemetry/prometheus/bounds.ts'
import { toFamilies } from '../../../src/telemetry/prometheus/gauges.ts'
import { createProcessMetrics } from '../../../src/telemetry/prometheus/process-metrics.ts'
import { writeFamilies } from '../../../src/telemetry/prometheus/text-format.ts'
import { parsePrometheusText, type ParsedFamily } from '../../support/prometheus-text.ts'

const label = 'messaging_destination_subscription_name'

function familyOf(families: readonly ParsedFamily[], name: string): ParsedFamily {
  const family = families.find((each) => each.name === name)
  if (family === undefined) throw new Error(`There is no ${name}`)
  return family
}

const sumOf = ({ samples }: Pick<ParsedFamily, 'samples'>): number =>
  samples.reduce((sum, { value }) => sum + value, 0)

test('however many types, subscriptions and errors there are, the series are bounded and add up', () => {
  const { recorder, start, read } = createProcessMetrics({ types: ['known'], subscriptions: () => ['own'] })
  start()
  const count = 20_000
  for (let n = 0; n < count; n += 1) {
    recorder.attempt(`type ${n}`, `subscription ${n}`, 0.01, 1, n % 2 === 0 ? undefined : `Error${n}`)
    recorder.operation('publish', `type ${n}`, undefined, 0.01, undefined)
    recorder.sent(`type ${n}`, 2, undefined)
    recorder.dead(`subscription ${n}`, 1)
  }
  // Every pair of few values.
  for (let type = 0; type < 100; type += 1)
    for (let subscription = 0; subscription < 100; subscription += 1)
      recorder.attempt(`type ${type}`, `subscription ${subscription}`, 0.01, undefined, undefined)
  const text = writeFamilies(read())
  const families = parsePrometheusText(text)
  expect(text.split('\n').length).toBeLessThan(30_000)
  for (const { kind, samples } of families) {
    const most = kind === 'counter' ? bounds.counterSeries : bounds.histogramSeries * 17
    expect(samples.length).toBeLessThanOrEqual(most + 4 * 17)
  }
  const consumed = familyOf(families, 'messaging_client_consumed_messages_total')
  expect(sumOf(consumed)).toBe(count + 10_000)
  const sent = familyOf(families, 'messaging_client_sent_messages_total')
  expect(sumOf(sent)).toBe(2 * count)
  const other = sent.samples.filter(({ labels }) => labels['messaging_destination_name'] === '_OTHER')
  expect(other).toMatchObject([
    {
      labels: {
        messaging_operation_name: 'publish',
        messaging_system: 'bossbus',
        messaging_destination_name: '_OTHER',
      },
      // All but those that have series of their own, of which one is known and was not sent.
      value: 2 * (count - (bounds.types - 1)),
    },
  ])
  expect(sumOf(familyOf(families, 'bossbus_dead_total'))).toBe(count)
  const errors = new Set(
    familyOf(families, 'bossbus_attempts_failed_total').samples.map(({ labels }) => labels['error_type']),
  )
  expect(errors.size).toBe(bounds.errorTypes + 1)
  const durations = familyOf(families, 'messaging_process_duration_seconds')
  const counts = durations.samples.filter(({ name }) => name.endsWith('_count'))
  expect(sumOf({ samples: counts })).toBe(count + 10_000)
})

test('what is known has series of its own, whatever else there is', () => {
  const { recorder, start, read } = createProcessMetrics({ types: ['known'], subscriptions: () => ['own'] })
  start()
  read()
  for (let n = 0; n < 1000; n += 1) recorder.attempt(`type ${n}`, `subscription ${n}`, 0.01, 1, undefined)
  recorder.sent('known', 1, undefined)
  recorder.dead('own', 1)
  const families = parsePrometheusText(writeFamilies(read()))
  expect(familyOf(families, 'messaging_client_sent_messages_total').samples).toMatchObject([
    { labels: { messaging_destination_name: 'known' }, value: 1 },
  ])
  expect(familyOf(families, 'bossbus_dead_total').samples[0]).toMatchObject({
    labels: { [label]: 'own' },
    value: 1,
  })
})

test('what the catalogue knows has series of its own, also where other types were counted first', () => {
  const { recorder, start, read } = createProcessMetrics({ types: ['known'], subscriptions: () => [] })
  start()
  for (let n = 0; n < 1000; n += 1) recorder.attempt(`type ${n}`, 'own', 0.01, undefined, undefined)
  recorder.sent('known', 1, undefined)
  expect(
    familyOf(parsePrometheusText(writeFamilies(read())), 'messaging_client_sent_messages_total').samples,
  ).toMatchObject([{ labels: { messaging_destination_name: 'known' }, value: 1 }])
})

test('durations are in the buckets that they belong to', () => {
  const { recorder, start, read } = createProcessMetrics({ types: [], subscriptions: () => [] })
  start()
  for (const seconds of [0, 0.005, 0.0051, 10, 10.1, 3600])
    recorder.attempt('a', 's', seconds, undefined, undefined)
  const { samples } = familyOf(
    parsePrometheusText(writeFamilies(read())),
    'messaging_process_duration_seconds',
  )
  const inBucket = (le: string) => samples.find(({ labels }) => labels['le'] === le)?.value
  expect(['0.005', '0.01', '10', '+Inf'].map(inBucket)).toEqual([2, 3, 4, 6])
  expect(samples.find(({ name }) => name.endsWith('_sum'))?.value).toBeCloseTo(3620.1101)
})

test('nothing is counted before the start', () => {
  const { recorder, start, read } = createProcessMetrics({ types: ['a'], subscriptions: () => [] })
  expect(recorder.isOn).toBe(false)
  recorder.sent('a', 1, undefined)
  start()
  expect(recorder.isOn).toBe(true)
  recorder.sent('a', 1, undefined)
  const families = parsePrometheusText(writeFamilies(read()))
  expect(sumOf(familyOf(families, 'messaging_client_sent_messages_total'))).toBe(1)
})

test('tenants that differ only in what cannot be printed are one series', () => {
  const families = toFamilies(
    ['a\u200B', 'a\u200C', 'b'].map((tenant) => ({ gauge: 'tenantWaiting', labels: { tenant }, value: 2 })),
  )
  expect(
    familyOf(parsePrometheusText(writeFamilies(families)), 'bossbus_tenant_waiting').samples,
  ).toMatchObject([
    { labels: { tenant: 'a\uFFFD' }, value: 4 },
    { labels: { tenant: 'b' }, value: 2 },
  ])
})

test('gauges of more subscriptions than are named become one: counts are added, of lags the largest counts', () => {
  const names = Array.from({ length: 1000 }, (_, n) => `s${String(n).padStart(4, '0')}`)
  const families = toFamilies(
    names.flatMap((subscription, n) => [
      { gauge: 'ready', labels: { subscription }, value: 1 },
      { gauge: 'lag', labels: { subscription }, value: n },
    ]),
  )
  const samplesOf = (name: string) => families.find((each) => each.name === name)?.samples ?? []
  expect(samplesOf('bossbus_ready')).toHaveLength(bounds.subscriptions + 1)
  expect(samplesOf('bossbus_ready')[0]).toEqual({ labels: { [label]: 's0000' }, value: 1 })
  expect(samplesOf('bossbus_ready').at(-1)).toEqual({ labels: { [label]: '_OTHER' }, value: 800 })
  expect(samplesOf('bossbus_lag_seconds').at(-1)).toEqual({ labels: { [label]: '_OTHER' }, value: 999 })
  expect(samplesOf('bossbus_active')).toEqual([])
})
