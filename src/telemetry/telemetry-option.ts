import { assertObject, booleanOption, refuseUnknownKeys } from '../foundation/options.ts'

/** The option `telemetry` of `createBus`. */
export interface TelemetrySettings {
  /**
   * Spans for publishing, cancelling, handling and settling, and the trace context and baggage that travel with events.
   * @defaultValue `true`
   */
  readonly spans?: boolean | undefined
  /**
   * A span of its own for each event of `publishMany`, which its handlers then link to. Costs as much as publishing the events one by one
   * would.
   * @defaultValue `false`: the handlers link to the span of the call
   */
  readonly createSpans?: boolean | undefined
  /** Counts and durations. @defaultValue `true` */
  readonly metrics?: boolean | undefined
}

/** `false`: nothing is told to OpenTelemetry. */
export type TelemetryOption = boolean | TelemetrySettings

export interface ResolvedTelemetry {
  readonly spans: boolean
  readonly createSpans: boolean
  readonly metrics: boolean
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveTelemetry(given: TelemetryOption = true): ResolvedTelemetry {
  if (typeof given === 'boolean') return Object.freeze({ spans: given, createSpans: false, metrics: given })
  assertObject('`telemetry` to be false or like { spans, createSpans, metrics }', given)
  refuseUnknownKeys(given, ['spans', 'createSpans', 'metrics'], '`telemetry`')
  return Object.freeze({
    spans: booleanOption('telemetry.spans', given.spans, true),
    createSpans: booleanOption('telemetry.createSpans', given.createSpans, false),
    metrics: booleanOption('telemetry.metrics', given.metrics, true),
  })
}
