import { createNoopMeter, metrics, type Attributes, type Meter, type MeterProvider } from '@opentelemetry/api'
import { version } from '../foundation/version.ts'
import type { OperationName } from './attributes.ts'
import { durationBuckets, instruments, type Instrument } from './instruments.ts'
import { createAttributes } from './metric-attributes.ts'
import type { Recorder } from './recorder.ts'
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
  const record = createRecord(meter, instrument)
  const attributesFor = createAttributes(instrument)
  return (value, operation, type, subscription, errorType) => {
    try {
      record(value, attributesFor(operation, type, subscription, errorType))
    } catch {
      // An SDK that fails costs a measurement, not an event.
    }
  }
}

function createRecord(
  meter: Meter,
  { name, kind, unit, description }: Instrument,
): (value: number, attributes: Attributes) => void {
  if (kind === 'counter') {
    const counter = meter.createCounter(name, { unit, description })
    return (value, attributes) => counter.add(value, attributes)
  }
  const advice = { explicitBucketBoundaries: [...durationBuckets] }
  const histogram = meter.createHistogram(name, { unit, description, advice })
  return (value, attributes) => histogram.record(value, attributes)
}
