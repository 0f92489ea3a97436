import { createNoopMeter, metrics, type Attributes, type Meter, type MeterProvider } from '@opentelemetry/api'
import { version } from '../foundation/version.ts'
import { operationAttributes, type OperationName } from './attributes.ts'
import {
  attributeNames,
  durationBuckets,
  instruments,
  messagingSystem,
  type Instrument,
} from './instruments.ts'
import type { Recorder } from './recorder.ts'
import { cachedSeries, type SeriesOf } from './series.ts'
import { scopeName } from './tracer.ts'

/** Adds to a counter, or records a duration, under certain attributes. Never throws. */
type Measure = (value: number) => void

/** The measurements of an instrument. Attributes that it does not have are left out. */
type Measures = SeriesOf<OperationName | undefined, Measure>

interface Instruments extends Readonly<Record<keyof typeof instruments, Measures>> {
  /** What is measured of attempts. */
  readonly attempt: SeriesOf<'process', Readonly<Record<'ended' | 'consumed' | 'took' | 'waited', Measure>>>
}

/** Records what happens as metrics of OpenTelemetry, while an SDK is registered. */
export function createOtelRecorder(): Recorder {
  const instrumentsNow = createInstrumentSource()
  return {
    get isOn() {
      return instrumentsNow() !== undefined
    },
    operation(operation, type, subscription, seconds, errorType) {
      instrumentsNow()?.operationDuration(operation, type, subscription, errorType)(seconds)
    },
    sent(type, count, errorType) {
      instrumentsNow()?.sentMessages('publish', type, undefined, errorType)(count)
    },
    attempt(type, subscription, seconds, waitSeconds, errorType) {
      const measures = instrumentsNow()?.attempt('process', type, subscription, errorType)
      if (measures === undefined) return
      measures.ended(1)
      if (seconds !== undefined) {
        measures.consumed(1)
        measures.took(seconds)
      }
      if (waitSeconds !== undefined) measures.waited(waitSeconds)
    },
    expired(type, subscription) {
      instrumentsNow()?.expired(undefined, type, subscription, undefined)(1)
    },
    dead(subscription, count) {
      instrumentsNow()?.dead(undefined, undefined, subscription, undefined)(count)
    },
    redriven(subscription, count) {
      instrumentsNow()?.redriven(undefined, undefined, subscription, undefined)(count)
    },
  }
}

const noopMeter = createNoopMeter()

/**
 * Returns a function that returns the instruments of the SDK that is registered now. The API has no proxy for meters: one that is asked for
 * before the SDK is registered stays without effect.
 */
function createInstrumentSource(): () => Instruments | undefined {
  let known: MeterProvider | undefined
  let created: Instruments | undefined
  return () => {
    try {
      const provider = metrics.getMeterProvider()
      if (provider === known) return created
      // One that fails is not asked for each event.
      known = provider
      created = undefined
      const meter = provider.getMeter(scopeName, version)
      created = meter === noopMeter ? undefined : createInstruments(meter)
      return created
    } catch {
      return undefined
    }
  }
}

function createInstruments(meter: Meter): Instruments {
  const all = Object.fromEntries(
    Object.entries(instruments).map(([key, instrument]) => [key, createInstrument(meter, instrument)]),
  ) as Readonly<Record<keyof typeof instruments, Measures>>
  return {
    ...all,
    attempt: cachedSeries((operation, type, subscription, errorType) => ({
      ended:
        errorType === undefined
          ? all.delivered(undefined, type, subscription, undefined)
          : all.failedAttempts(undefined, type, subscription, errorType),
      consumed: all.consumedMessages(operation, type, subscription, errorType),
      took: all.processDuration(operation, type, subscription, errorType),
      waited: all.commitToHandler(undefined, type, subscription, undefined),
    })),
  }
}

/** They are few: operations, types, subscriptions and types of errors are. */
function createInstrument(meter: Meter, instrument: Instrument): Measures {
  const start =
    instrument.kind === 'counter' ? startCounters(meter, instrument) : startHistogram(meter, instrument)
  const hasType = instrument.attributes.includes('destination')
  const measures = cachedSeries<OperationName | undefined, Measure>(
    (operation, type, subscription, errorType) =>
      start(attributesOf(instrument, operation, type, subscription, errorType)),
  )
  return (operation, type, subscription, errorType) =>
    measures(operation, hasType ? type : undefined, subscription, errorType)
}

/** In the order of their names, in which an SDK sorts them for each measurement. */
function attributesOf(
  { attributes: names }: Instrument,
  operation: OperationName | undefined,
  type: string | undefined,
  subscription: string | undefined,
  errorType: string | undefined,
): Attributes {
  const attributes: Attributes =
    operation === undefined
      ? { [attributeNames.system]: messagingSystem }
      : operationAttributes(operation, undefined, undefined)
  if (!names.includes('operationType')) delete attributes[attributeNames.operationType]
  if (type !== undefined) attributes[attributeNames.destination] = type
  if (subscription !== undefined) attributes[attributeNames.subscription] = subscription
  if (errorType !== undefined) attributes[attributeNames.errorType] = errorType
  return Object.fromEntries(Object.entries(attributes).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** Counts by itself, and is asked when the metrics are collected: an SDK takes longer to add to a counter than many events may cost. */
function startCounters(meter: Meter, instrument: Instrument): (attributes: Attributes) => Measure {
  const { name, unit, description } = instrument
  const counters: { readonly attributes: Attributes; count: number }[] = []
  meter.createObservableCounter(name, { unit, description }).addCallback((result) => {
    for (const { count, attributes } of counters) if (count > 0) result.observe(count, attributes)
  })
  return (attributes) => {
    const counter = { attributes, count: 0 }
    counters.push(counter)
    return (value) => {
      counter.count += value
    }
  }
}

function startHistogram(meter: Meter, instrument: Instrument): (attributes: Attributes) => Measure {
  const { name, unit, description } = instrument
  const advice = { explicitBucketBoundaries: [...durationBuckets] }
  const histogram = meter.createHistogram(name, { unit, description, advice })
  return (attributes) => (value) => {
    try {
      histogram.record(value, attributes)
    } catch {
      // An SDK that fails costs a measurement, not an event.
    }
  }
}
