import type { SpanContext } from '@opentelemetry/api'
import { expect, test } from 'vitest'
import { linksTo } from '../../src/telemetry/links.ts'

const created = (trace: number, span: number): SpanContext => ({
  traceId: trace.toString(16).padStart(32, '0'),
  spanId: span.toString(16).padStart(16, '0'),
  traceFlags: 1,
})

test('each span that created events is linked to once', () => {
  const [a, b, sameSpanOfAnotherTrace] = [created(1, 1), created(1, 2), created(2, 1)]
  const all = [a, a, undefined, b, created(1, 1), sameSpanOfAnotherTrace]
  expect(linksTo(all)).toEqual([{ context: a }, { context: b }, { context: sameSpanOfAnotherTrace }])
  expect(linksTo([undefined])).toEqual([])
})

test('there are no more links than an SDK keeps', () => {
  const links = linksTo(Array.from({ length: 200 }, (_, i) => created(1, i + 1)))
  expect(links.length).toBe(128)
  expect(links.at(-1)?.context.spanId).toBe(created(1, 128).spanId)
})
