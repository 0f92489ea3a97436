import { canary } from '../../events/event-type.ts'
import { durationBuckets, instruments, messagingSystem, type Instrument } from '../instruments.ts'
import type { ClientOperation, Recorder } from '../recorder.ts'
import { cachedSeries } from '../series.ts'
import { bounds } from './bounds.ts'
import { boundedValues, createBoundedSeries } from './bounded-series.ts'
import { labelNames, metricName } from './names.ts'
import type { Family, Labels, Sample } from './text-format.ts'

/** What a process has counted and measured itself, for Prometheus. */
export interface ProcessMetrics {
  /** Records nothing before `start`, so that a bus that is never asked for its metrics pays nothing for them. */
  readonly recorder: Recorder
  start: () => void
  read: () => readonly Family[]
}

/** Cached combinations of labels. Beyond, they are looked up anew. */
const maxCached = 5000

/** @param known - what the code declares: its counters are there from the start, with 0 */
export function createProcessMetrics(known: {
  readonly types: readonly string[]
  readonly subscriptions: () => readonly string[]
}): ProcessMetrics {
  const type = boundedValues(bounds.types)
  for (const name of known.types) type(name)
  const subscription = boundedValues(bounds.subscriptions)
  const errorType = boundedValues(bounds.errorTypes)
  let isOn = false
  const counters = {
    sent: createCounter(instruments.sentMessages),
    consumed: createCounter(instruments.consumedMessages),
    delivered: createCounter(instruments.delivered),
    failed: createCounter(instruments.failedAttempts),
    dead: createCounter(instruments.dead),
    expired: createCounter(instruments.expired),
    redriven: createCounter(instruments.redriven),
  }
  const histograms = {
    operation: createHistogram(instruments.operationDuration),
    process: createHistogram(instruments.processDuration),
    wait: createHistogram(instruments.commitToHandler),
  }

  const labelsOf = (
    ofType: string | undefined,
    ofSubscription: string | undefined,
    ofError: string | undefined,
  ): Labels => ({
    [labelNames.system]: messagingSystem,
    ...(ofType === undefined ? {} : { [labelNames.destination]: type(ofType) }),
    ...(ofSubscription === undefined ? {} : { [labelNames.subscription]: subscription(ofSubscription) }),
    ...(ofError === undefined ? {} : { [labelNames.errorType]: errorType(ofError) }),
  })
  const published = { [labelNames.operationName]: 'publish' }
  const processed = { [labelNames.operationName]: 'process' }
  const operationTypes: Readonly<Record<ClientOperation, Labels>> = {
    publish: { ...published, [labelNames.operationType]: 'send' },
    settle: { [labelNames.operationName]: 'settle', [labelNames.operationType]: 'settle' },
    cancel: { [labelNames.operationName]: 'cancel' },
  }

  const operationSeries = cachedSeries(
    (operation: ClientOperation, ofType, ofSubscription, ofError) =>
      histograms.operation.of({ ...operationTypes[operation], ...labelsOf(ofType, ofSubscription, ofError) }),
    maxCached,
  )
  const sentSeries = cachedSeries(
    (_: 'sent', ofType, _subscription, ofError) =>
      counters.sent.of({ ...published, ...labelsOf(ofType, undefined, ofError) }),
    maxCached,
  )
  const attemptSeries = cachedSeries((_: 'attempt', ofType, ofSubscription, ofError) => {
    const labels = labelsOf(ofType, ofSubscription, ofError)
    return {
      consumed: counters.consumed.of({ ...processed, ...labels }),
      process: histograms.process.of({ ...processed, [labelNames.operationType]: 'process', ...labels }),
      wait: histograms.wait.of(labelsOf(ofType, ofSubscription, undefined)),
      outcome:
        ofError === undefined
          ? counters.delivered.of(labelsOf(undefined, ofSubscription, undefined))
          : counters.failed.of(labelsOf(undefined, ofSubscription, ofError)),
    }
  }, maxCached)
  const ofSubscription = (counter: Counter, name: string): CounterSeries =>
    counter.of(labelsOf(undefined, name, undefined))

  return {
    recorder: {
      get isOn() {
        return isOn
      },
      operation(operation, ofType, subscriptionName, seconds, ofError) {
        if (isOn) observe(operationSeries(operation, ofType, subscriptionName, ofError), seconds)
      },
      sent(ofType, count, ofError) {
        if (isOn) sentSeries('sent', ofType, undefined, ofError).value += count
      },
      attempt(ofType, subscriptionName, seconds, waitSeconds, ofError) {
        if (!isOn) return
        const series = attemptSeries('attempt', ofType, subscriptionName, ofError)
        series.outcome.value += 1
        if (seconds !== undefined) {
          series.consumed.value += 1
          observe(series.process, seconds)
        }
        if (waitSeconds !== undefined) observe(series.wait, waitSeconds)
      },
      expired(_type, name) {
        if (isOn) ofSubscription(counters.expired, name).value += 1
      },
      dead(name, count) {
        if (isOn) ofSubscription(counters.dead, name).value += count
      },
      redriven(name, count) {
        if (isOn) ofSubscription(counters.redriven, name).value += count
      },
    },
    start() {
      isOn = true
    },
    read() {
      // A counter that begins with 1 has not increased, for Prometheus.
      for (const name of known.types) sentSeries('sent', name, undefined, undefined)
      const names = known.subscriptions().filter((name) => name !== canary.subscription)
      for (const name of names)
        for (const counter of [counters.delivered, counters.dead, counters.expired, counters.redriven])
          ofSubscription(counter, name)
      return [...Object.values(counters), ...Object.values(histograms)].map((metric) => metric.read())
    },
  }
}

interface CounterSeries {
  value: number
}

interface HistogramSeries {
  /** How many durations were in each bucket, the last one without a bound. */
  readonly counts: number[]
  sum: number
}

interface Metric<Series> {
  of: (labels: Labels) => Series
  read: () => Family
}

type Counter = Metric<CounterSeries>

const fixedLabels = [labelNames.system, labelNames.operationName, labelNames.operationType]

function createCounter(instrument: Instrument): Counter {
  const series = createBoundedSeries<CounterSeries>(bounds.counterSeries, fixedLabels, () => ({ value: 0 }))
  return {
    of: series.of,
    read: () =>
      familyOf(
        instrument,
        series.all.map(({ labels, series: { value } }) => ({ labels, value })),
      ),
  }
}

function createHistogram(instrument: Instrument): Metric<HistogramSeries> {
  const series = createBoundedSeries<HistogramSeries>(bounds.histogramSeries, fixedLabels, () => ({
    counts: [...durationBuckets.map(() => 0), 0],
    sum: 0,
  }))
  return {
    of: series.of,
    read: () =>
      familyOf(
        instrument,
        series.all.flatMap(({ labels, series: one }) => histogramSamples(labels, one)),
      ),
  }
}

function familyOf(instrument: Instrument, samples: readonly Sample[]): Family {
  const { kind, description } = instrument
  return { name: metricName(instrument), kind, help: description, samples }
}

function observe(series: HistogramSeries, seconds: number): void {
  let n = 0
  while (n < durationBuckets.length && seconds > (durationBuckets[n] ?? 0)) n += 1
  series.counts[n] = (series.counts[n] ?? 0) + 1
  series.sum += seconds
}

function histogramSamples(labels: Labels, { counts, sum }: HistogramSeries): readonly Sample[] {
  let count = 0
  const buckets = counts.map((own, n): Sample => {
    count += own
    const le = durationBuckets[n] === undefined ? '+Inf' : String(durationBuckets[n])
    return { suffix: '_bucket', labels, le, value: count }
  })
  // The labels of a series that nothing was observed in are not written.
  if (count === 0) return []
  return [...buckets, { suffix: '_sum', labels, value: sum }, { suffix: '_count', labels, value: count }]
}
