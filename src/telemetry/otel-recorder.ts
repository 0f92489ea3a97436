import { createNoopMeter, metrics, type Meter, type MeterProvider } from '@opentelemetry/api'
import { version } from '../foundation/version.ts'
import type { OperationName } from './attributes.ts'
import { durationBuckets, instruments, type Instrument } from './instruments.ts'
import type { Recorder } from './recorder.ts'
import { createSeries } from './series.ts'
import { scopeName } from './tracer.ts'

/** Adds to a counter, or records a duration. Never throws. Attributes that the instrument does not have are left out. */
type Measure = (
  value: number,
  operation: OperationName | undefined,
  type: string | undefined,
  subscription: string | undefined,
  errorType: string | undefined,
) => void

type Measures = Readonly<Record<keyof typeof instruments, Measure>>

/** Records what happens as metrics of OpenTelemetry, while an SDK is registered. */
export function createOtelRecorder(): Recorder {
  const measuresNow = createMeasureSource()
  return {
    get isOn() {
      return measuresNow() !== undefined
    },
    operation(operation, type, subscription, seconds, errorType) {
      measuresNow()?.operationDuration(seconds, operation, type, subscription, errorType)
    },
    sent(type, count, errorType) {
      measuresNow()?.sentMessages(count, 'publish', type, undefined, errorType)
    },
    attempt(type, subscription, seconds, waitSeconds, errorType) {
      const measures = measuresNow()
      if (measures === undefined) return
      if (seconds !== undefined) {
        measures.consumedMessages(1, 'process', type, subscription, errorType)
        measures.processDuration(seconds, 'process', type, subscription, errorType)
      }
      if (waitSeconds !== undefined)
        measures.commitToHandler(waitSeconds, undefined, type, subscription, undefined)
      const { delivered, failedAttempts } = measures
      const count = errorType === undefined ? delivered : failedAttempts
      count(1, undefined, type, subscription, errorType)
    },
    expired(type, subscription) {
      measuresNow()?.expired(1, undefined, type, subscription, undefined)
    },
    dead(subscription, count) {
      measuresNow()?.dead(count, undefined, undefined, subscription, undefined)
    },
    redriven(subscription, count) {
      measuresNow()?.redriven(count, undefined, undefined, subscription, undefined)
    },
  }
}

const noopMeter = createNoopMeter()

/**
 * Returns a function that returns the measures on the SDK that is registered now. The API has no proxy for meters: one that is asked for before
 * the SDK is registered stays without effect.
 */
function createMeasureSource(): () => Measures | undefined {
  let known: MeterProvider | undefined
  let measures: Measures | undefined
  return () => {
    try {
      const provider = metrics.getMeterProvider()
      if (provider === known) return measures
      const meter = provider.getMeter(scopeName, version)
      measures = meter === noopMeter ? undefined : createMeasures(meter)
      known = provider
      return measures
    } catch {
      return undefined
    }
  }
}

function createMeasures(meter: Meter): Measures {
  const measures = Object.entries(instruments).map(([key, instrument]) => [
    key,
    createMeasure(meter, instrument),
  ])
  return Object.fromEntries(measures) as Measures
}

function createMeasure(meter: Meter, instrument: Instrument): Measure {
  return instrument.kind === 'counter' ? createCounter(meter, instrument) : createHistogram(meter, instrument)
}

/** Counts by itself, and is asked when the metrics are collected: an SDK takes longer to add to a counter than many events may cost. */
function createCounter(meter: Meter, instrument: Instrument): Measure {
  const { name, unit, description } = instrument
  const series = createSeries(instrument)
  meter.createObservableCounter(name, { unit, description }).addCallback((result) => {
    for (const { count, attributes } of series.all) result.observe(count, attributes)
  })
  return (value, operation, type, subscription, errorType) => {
    series.of(operation, type, subscription, errorType).count += value
  }
}

function createHistogram(meter: Meter, instrument: Instrument): Measure {
  const { name, unit, description } = instrument
  const series = createSeries(instrument)
  const advice = { explicitBucketBoundaries: [...durationBuckets] }
  const histogram = meter.createHistogram(name, { unit, description, advice })
  return (value, operation, type, subscription, errorType) => {
    try {
      histogram.record(value, series.of(operation, type, subscription, errorType).attributes)
    } catch {
      // An SDK that fails costs a measurement, not an event.
    }
  }
}
