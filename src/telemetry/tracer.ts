import { trace, type Tracer, type TracerProvider } from '@opentelemetry/api'
import { version } from '../foundation/version.ts'

/** The name of the instrumentation scope of spans and metrics. */
export const scopeName = 'bossbus'

/** The API puts it before the provider of the SDK. Without an SDK it has no tracer. */
interface ProviderProxy {
  readonly getDelegate?: () => TracerProvider
  readonly getDelegateTracer?: (name: string, version: string) => Tracer | undefined
}

/**
 * Returns a function that returns the tracer of the SDK that is registered now; undefined while there is none. So an SDK may be started after
 * the bus, and nothing is done without one.
 */
export function createTracerSource(): () => Tracer | undefined {
  let known: TracerProvider | undefined
  let tracer: Tracer | undefined
  return () => {
    try {
      const registered: TracerProvider & ProviderProxy = trace.getTracerProvider()
      const provider = registered.getDelegate?.() ?? registered
      if (provider === known) return tracer
      // One that fails is not asked for each event.
      known = provider
      tracer = undefined
      tracer =
        registered.getDelegateTracer === undefined
          ? provider.getTracer(scopeName, version)
          : registered.getDelegateTracer(scopeName, version)
      return tracer
    } catch {
      return undefined
    }
  }
}
