import {
  context,
  metrics,
  propagation,
  trace,
  type ContextManager,
  type TextMapPropagator,
} from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core'
import { MeterProvider, MetricReader, type DataPoint, type Histogram } from '@opentelemetry/sdk-metrics'
import {
  InMemorySpanExporter,
  SimpleSpanProcessor,
  TracerProvider,
  type ReadableSpan,
  type Sampler,
  type SpanProcessor,
} from '@opentelemetry/sdk-trace'
import { onTestFinished } from 'vitest'
import { until } from './database.ts'

/** What a test reads of an SDK that exports into memory. */
export interface RecordedTelemetry {
  /** The spans that have ended, in this order. */
  readonly spans: readonly ReadableSpan[]
  /** Resolves to the spans of these names, one for each name, as soon as all have ended. */
  readonly named: (...names: readonly string[]) => Promise<ReadableSpan[]>
  /** The measurements of an instrument so far. */
  readonly measured: (instrument: string) => Promise<Measured[]>
  /** The instruments that have measured something. */
  readonly instruments: () => Promise<InstrumentSeen[]>
}

interface InstrumentSeen {
  readonly name: string
  readonly unit: string
  readonly buckets: readonly number[] | undefined
}

export interface Measured {
  readonly attributes: Readonly<Record<string, unknown>>
  /** The sum of a counter, or how often a duration was measured. */
  readonly count: number
  /** The sum of the durations. */
  readonly sum: number
}

export interface SdkOptions {
  readonly sampler?: Sampler
  readonly processors?: readonly SpanProcessor[]
  readonly propagator?: TextMapPropagator
  readonly contextManager?: ContextManager
}

/** Registers an SDK as a service does. It is taken back when the test is over. */
export function registerSdk(options: SdkOptions = {}): RecordedTelemetry {
  onTestFinished(unregisterSdk)
  const exporter = new InMemorySpanExporter()
  const reader = new MemoryReader()
  context.setGlobalContextManager(options.contextManager ?? new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(
    options.propagator ??
      new CompositePropagator({
        propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()],
      }),
  )
  trace.setGlobalTracerProvider(
    new TracerProvider({
      ...(options.sampler === undefined ? {} : { sampler: options.sampler }),
      spanProcessors: [...(options.processors ?? [new SimpleSpanProcessor({ exporter })])],
    }),
  )
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }))

  async function collect() {
    const { resourceMetrics } = await reader.collect()
    return resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics)
  }

  return {
    get spans() {
      return exporter.getFinishedSpans()
    },
    async named(...names) {
      const found = (): (ReadableSpan | undefined)[] => {
        const left = [...exporter.getFinishedSpans()]
        return names.map((name) => {
          const index = left.findIndex((span) => span.name === name)
          return index === -1 ? undefined : left.splice(index, 1)[0]
        })
      }
      await until(`the spans ${names.join(', ')} have ended`, () => !found().includes(undefined))
      return found().filter((span) => span !== undefined)
    },
    async measured(instrument) {
      const metric = (await collect()).find(({ descriptor }) => descriptor.name === instrument)
      const points: readonly DataPoint<number | Histogram>[] = (metric?.dataPoints ?? []) as never
      return points.map(({ attributes, value }) =>
        typeof value === 'number'
          ? { attributes, count: value, sum: value }
          : { attributes, count: value.count, sum: value.sum ?? 0 },
      )
    },
    async instruments() {
      return (await collect()).map(({ descriptor: { name, unit }, dataPoints }) => {
        const [first] = dataPoints as readonly DataPoint<number | Histogram>[]
        const value = first?.value
        return {
          name,
          unit,
          buckets: typeof value === 'object' ? value.buckets.boundaries : undefined,
        }
      })
    },
  }
}

export function unregisterSdk(): void {
  for (const api of [trace, metrics, propagation, context]) api.disable()
}

/** Reads when it is asked to. */
class MemoryReader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** The ids of the spans that a span links to. */
export function linkedSpans({ links }: ReadableSpan): string[] {
  return links.map((link) => link.context.spanId)
}

/** The id of a span. A test that compares it has waited for the span. */
export function idOf(span: ReadableSpan | undefined): string {
  return span?.spanContext().spanId ?? 'there is no span'
}

/** An attribute of a span, as text. */
export function textOf(span: ReadableSpan, attribute: string): string {
  return JSON.stringify(span.attributes[attribute]) ?? 'undefined'
}
