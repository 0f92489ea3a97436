import { SpanKind, type Context, type SpanContext, type Tracer } from '@opentelemetry/api'
import type { EventMetadata, Published } from '../events/envelope.ts'
import {
  commonTypeOf,
  eventAttributes,
  operationAttributes,
  spanAttributeNames,
  spanName,
  type ServerAddress,
} from './attributes.ts'
import { GuardedSpan } from './guarded-span.ts'
import { linksTo } from './links.ts'
import type { OperationSpan } from './tell-operation.ts'
import { activeContext, createContextReader, creationContextFinder, injectContext } from './trace-context.ts'

/** What a span says of an event that is published. */
export interface OutgoingEvent {
  readonly type: string
  readonly tenantId: string
  readonly correlationId?: string | undefined
  readonly metadata?: EventMetadata | undefined
}

/** The span of a call of publish, with those of its events where they have some. */
export interface PublishSpan extends OperationSpan<readonly Published[]> {
  /** The entries that an event's metadata get; undefined for an event that says itself where it was created. */
  readonly contextFor: (index: number) => EventMetadata | undefined
}

/** An event of a call. */
interface Created {
  /** Its metadata say where it was created. */
  readonly isElsewhere: boolean
  readonly event: OutgoingEvent
  /** The span of its own. */
  readonly span: GuardedSpan | undefined
}

/**
 * Begins the span of a call of publish. It creates its events, so it is a PRODUCER, unless each of them was created elsewhere or has a span of
 * its own.
 *
 * @param isBatch - of publishMany
 * @param options - `createSpans` gives each event of a batch a span of its own
 */
export function startPublishSpan(
  tracer: Tracer,
  events: readonly OutgoingEvent[],
  isBatch: boolean,
  { createSpans, server }: { readonly createSpans: boolean; readonly server: ServerAddress | undefined },
): PublishSpan | undefined {
  const parent = activeContext()
  const hasCreationContext = creationContextFinder()
  const created = events.map((event): Created => {
    const isElsewhere = hasCreationContext(event.metadata)
    const hasSpan = createSpans && isBatch && !isElsewhere
    return { event, isElsewhere, span: hasSpan ? startCreateSpan(tracer, event, parent) : undefined }
  })
  const createsThem = created.some(({ isElsewhere, span }) => !isElsewhere && span === undefined)
  const type = commonTypeOf(events)
  const attributes = operationAttributes('publish', type, undefined, server)
  if (isBatch) attributes[spanAttributeNames.batchCount] = events.length
  const options = {
    kind: createsThem ? SpanKind.PRODUCER : SpanKind.CLIENT,
    attributes,
    links: linksTo(creatorsOf(created)),
  }
  const span = GuardedSpan.start(tracer, spanName('publish', type), options, parent)
  if (span === undefined) return undefined
  const [first] = events
  if (!isBatch && first !== undefined && span.isRecording) span.set(eventAttributes(first))
  const shared = createsThem ? injectContext(span.context) : undefined
  return {
    contextFor(index) {
      const each = created[index]
      if (each === undefined || each.isElsewhere) return undefined
      return each.span === undefined ? shared : injectContext(each.span.context)
    },
    run: (work) => span.run(work),
    end(published) {
      endCreated(created, published)
      if (!isBatch && span.isRecording) span.set(publishedAttributes(published[0]))
      span.end()
    },
    fail(thrown, errorType) {
      endCreated(created, [])
      span.fail(thrown, errorType)
    },
  }
}

function startCreateSpan(tracer: Tracer, event: OutgoingEvent, parent: Context): GuardedSpan | undefined {
  const attributes = operationAttributes('create', event.type, undefined)
  const options = { kind: SpanKind.PRODUCER, attributes }
  const span = GuardedSpan.start(tracer, spanName('create', event.type), options, parent)
  if (span?.isRecording === true) span.set(eventAttributes(event))
  return span
}

/** The database gives events their ids, so their spans end when they are stored. */
function endCreated(created: readonly Created[], published: readonly Published[]): void {
  for (const [index, { span }] of created.entries()) {
    if (span === undefined) continue
    if (span.isRecording) span.set(publishedAttributes(published[index]))
    span.end()
  }
}

function publishedAttributes(published: Published | undefined): Record<string, string | boolean> {
  if (published === undefined) return {}
  const { id, duplicate } = published
  return duplicate
    ? { [spanAttributeNames.messageId]: id, [spanAttributeNames.duplicate]: true }
    : { [spanAttributeNames.messageId]: id }
}

/** The spans that created the events, but for that of the call. */
function* creatorsOf(created: readonly Created[]): Generator<SpanContext | undefined> {
  const carriedBy = createContextReader()
  for (const { event, isElsewhere, span } of created)
    yield isElsewhere ? carriedBy(event.metadata ?? {}).created : span?.spanContext
}
