import { ROOT_CONTEXT, SpanKind, trace, type Context, type Tracer } from '@opentelemetry/api'
import {
  commonTypeOf,
  operationAttributes,
  spanAttributeNames,
  spanName,
  type ServerAddress,
} from './attributes.ts'
import { GuardedSpan } from './guarded-span.ts'
import { linksTo } from './links.ts'
import type { AttemptTrace } from './process-spans.ts'

/**
 * Begins the span of a transaction that writes outcomes. That of a single event is a child of its handler call; that of several begins a trace of
 * its own. It links to the spans that created the events.
 *
 * @param attempts - undefined where no handler was called
 */
export function startSettleSpan(
  tracer: Tracer,
  subscription: string,
  attempts: readonly (AttemptTrace | undefined)[],
  server: ServerAddress | undefined,
): GuardedSpan | undefined {
  const called = attempts.filter((attempt) => attempt !== undefined)
  const type = called.length === attempts.length ? commonTypeOf(called) : undefined
  const attributes = operationAttributes('settle', type, subscription, server)
  if (attempts.length > 1) attributes[spanAttributeNames.batchCount] = attempts.length
  return GuardedSpan.start(
    tracer,
    spanName('settle', type),
    { kind: SpanKind.CLIENT, attributes, links: linksTo(called.map(({ created }) => created)) },
    parentOf(attempts),
  )
}

function parentOf(attempts: readonly (AttemptTrace | undefined)[]): Context {
  const processed = attempts.length === 1 ? attempts[0]?.processed : undefined
  return processed === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, processed)
}
