import type { ServerAddress } from './attributes.ts'
import { boundedRecorder } from './bounded-recorder.ts'
import { createOtelRecorder } from './otel-recorder.ts'
import { combineRecorders, noRecorder, type Recorder } from './recorder.ts'
import { createSpans, noSpans, type Spans } from './spans.ts'
import type { ResolvedTelemetry } from './telemetry-option.ts'

/** What a bus tells about its work. */
export interface Telemetry {
  readonly spans: Spans
  readonly recorder: Recorder
}

/**
 * @param recorders - further ones, beside OpenTelemetry
 * @param serverNow - the database server, as far as it is known
 */
export function createTelemetry(
  option: ResolvedTelemetry,
  recorders: readonly Recorder[] = [],
  serverNow?: () => ServerAddress | undefined,
): Telemetry {
  return {
    spans: option.spans ? createSpans(option.createSpans, serverNow) : noSpans,
    recorder: boundedRecorder(
      combineRecorders(option.metrics ? [createOtelRecorder(), ...recorders] : recorders),
    ),
  }
}

/** Tells nobody: for the canary, which says nothing about a service. */
export const noTelemetry: Telemetry = { spans: noSpans, recorder: noRecorder }
