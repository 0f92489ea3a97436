import type { Link, SpanContext } from '@opentelemetry/api'

/** An SDK keeps so many links of a span, unless it is told otherwise. */
const maxLinkCount = 128

/** Links to the spans that created events, one to each: the events of a call of publish have been created by the same. */
export function linksTo(created: Iterable<SpanContext | undefined>): Link[] {
  const links: Link[] = []
  const known = new Set<string>()
  let last: SpanContext | undefined
  for (const context of created) {
    if (context === undefined || context === last) continue
    last = context
    const id = `${context.traceId}${context.spanId}`
    if (known.has(id)) continue
    if (links.length === maxLinkCount) break
    known.add(id)
    links.push({ context })
  }
  return links
}
