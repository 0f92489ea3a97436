import { escapeUnprintable } from '../../foundation/text.ts'

/** A value as JSON on one line: times in ISO 8601, bigints as text, nothing that a terminal would obey. Undefined fields are left out. */
export function jsonText(value: unknown): string {
  return escapeUnprintable(
    JSON.stringify(value, (_key, each: unknown) => (typeof each === 'bigint' ? String(each) : each)) ??
      'null',
  )
}
