import {
  context,
  ROOT_CONTEXT,
  SpanStatusCode,
  trace,
  type Attributes,
  type Context,
  type Span,
  type SpanContext,
  type SpanOptions,
  type Tracer,
} from '@opentelemetry/api'
import { describeError } from '../foundation/described-error.ts'
import { attributeNames } from './instruments.ts'

/** A span that has begun. Whatever the SDK does, none of its functions throws. */
export class GuardedSpan {
  readonly #span: Span
  /** The context in which it is the active span. */
  readonly context: Context

  private constructor(span: Span, parent: Context) {
    this.#span = span
    this.context = trace.setSpan(parent, span)
  }

  /** Begins a span; undefined where the SDK fails to. */
  static start(tracer: Tracer, name: string, options: SpanOptions, parent: Context): GuardedSpan | undefined {
    try {
      return new GuardedSpan(tracer.startSpan(name, options, parent), parent)
    } catch {
      return undefined
    }
  }

  get spanContext(): SpanContext | undefined {
    try {
      return this.#span.spanContext()
    } catch {
      return undefined
    }
  }

  /** Calls a function while the span is the active one, as are the spans of what it goes on to do. */
  run<T>(work: () => T): T {
    return runIn(this.context, work)
  }

  /** Whether anybody is going to see its attributes. */
  get isRecording(): boolean {
    try {
      return this.#span.isRecording()
    } catch {
      return false
    }
  }

  set(attributes: Attributes): void {
    try {
      this.#span.setAttributes(attributes)
    } catch {
      // The span lacks them then.
    }
  }

  end(): void {
    try {
      this.#span.end()
    } catch {
      // It is never exported then.
    }
  }

  /** Ends the span of an operation that failed. The error is described as in logs and dead letters: without payloads and passwords. */
  fail(thrown: unknown, errorType: string): void {
    try {
      if (this.isRecording) {
        const { name, message, stack } = describeError(thrown)
        this.#span.setAttribute(attributeNames.errorType, errorType)
        this.#span.recordException({ name, message, ...(stack === undefined ? {} : { stack }) })
        this.#span.setStatus({ code: SpanStatusCode.ERROR, message })
      }
    } catch {
      // The span says less then.
    }
    this.end()
  }
}

/** Calls a function in a context, even where the context manager fails. Returns and throws what the function does. */
function runIn<T>(active: Context, work: () => T): T {
  let ended: { readonly returned: T } | { readonly thrown: unknown } | undefined
  try {
    context.with(active, () => {
      try {
        ended = { returned: work() }
      } catch (thrown) {
        ended = { thrown }
      }
    })
  } catch {
    // The function was called before, or is called now.
  }
  return finish(ended, work)
}

function finish<T>(
  ended: { readonly returned: T } | { readonly thrown: unknown } | undefined,
  work: () => T,
): T {
  if (ended === undefined) return work()
  if ('thrown' in ended) throw ended.thrown
  return ended.returned
}

/**
 * Calls a function outside of every trace: for what goes on long after the call, such as the loops of a bus that was started while a request
 * was handled.
 */
export function runOutside<T>(work: () => T): T {
  return runIn(ROOT_CONTEXT, work)
}
