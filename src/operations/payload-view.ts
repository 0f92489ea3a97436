import type { EventCatalogue } from '../events/catalogue.ts'
import { mayCompare, redactPayload } from '../events/payload-redaction.ts'

/** What reads may say of payloads, depending on the type of the event. */
export interface PayloadView {
  /** The visible part of a payload. */
  readonly show: (type: string, payload: unknown) => unknown
  /** The types of the catalogue, and whether a search may compare this part with their payloads. */
  readonly comparable: (part: object) => ReadonlyMap<string, boolean>
}

export function createPayloadView(catalogue: EventCatalogue): PayloadView {
  return {
    show: (type, payload) => redactPayload(catalogue, type, payload),
    comparable: (part) =>
      new Map(Object.keys(catalogue).map((type) => [type, mayCompare(catalogue, type, part)])),
  }
}
