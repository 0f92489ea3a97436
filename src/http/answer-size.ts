/** What the items of one answer may take as JSON, in characters. */
const maxAnswerLength = 8_388_608

/**
 * The first items, as many as an answer may have: at least one. A page of large events is cut, and the next one goes on behind its last item.
 */
export function cutToSize<T>(items: readonly T[]): { readonly kept: readonly T[]; readonly isCut: boolean } {
  let length = 0
  for (const [index, item] of items.entries()) {
    length += toJsonText(item).length
    if (length > maxAnswerLength && index > 0) return { kept: items.slice(0, index), isCut: true }
  }
  return { kept: items, isCut: false }
}

/** Times are ISO 8601, what is undefined is left out, and integers of any size are exact: as texts beyond what a number holds. */
export function toJsonText(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? String(item) : item))
}
