import { SpanKind, type Context, type Link, type Tracer } from '@opentelemetry/api'
import type { EventMetadata, Published } from '../events/envelope.ts'
import { operationAttributes, spanAttributeNames, spanName } from './attributes.ts'
import { GuardedSpan } from './guarded-span.ts'
import type { OperationSpan } from './tell-operation.ts'
import {
  activeContext,
  creationContextIn,
  extractContext,
  hasCreationContext,
  injectContext,
} from './trace-context.ts'

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

/** An SDK keeps so many links of a span, unless it is told otherwise. */
export const maxLinkCount = 128

/** The type that all events have; undefined where they have several. */
export function commonTypeOf(events: readonly { readonly type: string }[]): string | undefined {
  const [first] = events
  return first !== undefined && events.every(({ type }) => type === first.type) ? first.type : undefined
}

/**
 * Begins the span of a call of publish. It creates its events, so it is a PRODUCER, unless each of them was created elsewhere or has a span of
 * its own.
 *
 * @param isBatch - of publishMany
 * @param createSpans - gives each event of a batch a span of its own
 */
export function startPublishSpan(
  tracer: Tracer,
  events: readonly OutgoingEvent[],
  isBatch: boolean,
  createSpans: boolean,
): PublishSpan | undefined {
  const parent = activeContext()
  const isForeign = events.map(({ metadata }) => hasCreationContext(metadata))
  const created =
    isBatch && createSpans ? events.map((event, i) => createSpan(tracer, event, isForeign[i], parent)) : []
  const createsItself = created.length === 0 && isForeign.includes(false)
  const type = commonTypeOf(events)
  const attributes = operationAttributes('publish', type, undefined)
  if (isBatch) attributes[spanAttributeNames.batchCount] = events.length
  else addEvent(attributes, events[0])
  const span = GuardedSpan.start(
    tracer,
    spanName('publish', type),
    {
      kind: createsItself ? SpanKind.PRODUCER : SpanKind.CLIENT,
      attributes,
      links: [...linksTo(events, isForeign), ...created.flatMap(linkTo)].slice(0, maxLinkCount),
    },
    parent,
  )
  if (span === undefined) return undefined
  const own = createsItself ? injectContext(span.context) : undefined
  const endCreated = (published: readonly Published[]): void => {
    for (const [i, each] of created.entries()) {
      const id = published[i]?.id
      if (id !== undefined) each?.set(spanAttributeNames.messageId, id)
      each?.end()
    }
  }
  return {
    contextFor(index) {
      if (isForeign[index] !== false) return undefined
      const context = created[index]?.context
      return context === undefined ? own : injectContext(context)
    },
    run: (work) => span.run(work),
    end(published) {
      endCreated(published)
      const [first] = published
      if (!isBatch && first !== undefined) {
        span.set(spanAttributeNames.messageId, first.id)
        if (first.duplicate) span.set(spanAttributeNames.duplicate, true)
      }
      span.end()
    },
    fail(thrown, errorType) {
      endCreated([])
      span.fail(thrown, errorType)
    },
  }
}

function createSpan(
  tracer: Tracer,
  event: OutgoingEvent,
  isForeign: boolean | undefined,
  parent: Context,
): GuardedSpan | undefined {
  if (isForeign !== false) return undefined
  const { type } = event
  const attributes = operationAttributes('create', type, undefined)
  addEvent(attributes, event)
  return GuardedSpan.start(tracer, spanName('create', type), { kind: SpanKind.PRODUCER, attributes }, parent)
}

function addEvent(attributes: Record<string, unknown>, event: OutgoingEvent | undefined): void {
  if (event === undefined) return
  attributes[spanAttributeNames.tenant] = event.tenantId
  if (event.correlationId !== undefined) attributes[spanAttributeNames.conversationId] = event.correlationId
}

/** To where events were created that were not created here. */
function linksTo(events: readonly OutgoingEvent[], isForeign: readonly boolean[]): Link[] {
  const links: Link[] = []
  for (const [i, { metadata }] of events.entries()) {
    if (links.length === maxLinkCount) break
    if (isForeign[i] !== true || metadata === undefined) continue
    const created = creationContextIn(extractContext(metadata))
    if (created !== undefined) links.push({ context: created })
  }
  return links
}

function linkTo(span: GuardedSpan | undefined): Link[] {
  return span?.spanContext === undefined ? [] : [{ context: span.spanContext }]
}
