/** An answer may be so long, in characters of JSON: a model reads all of it. */
const maxLength = 40_000

/** Tried one after the other until the answer is short enough. */
const bounds = [
  { text: 2000, items: 100 },
  { text: 1000, items: 50 },
  { text: 500, items: 25 },
  { text: 200, items: 10 },
  { text: 100, items: 5 },
  { text: 50, items: 2 },
] as const

/**
 * A value as JSON of bounded length. Long texts and lists are cut, and say how much of them is missing; `isCut` is added to an answer of which
 * something was.
 */
export function boundedAnswer(value: object): string {
  for (const bound of bounds) {
    let isCut = false
    const cut = (each: unknown): unknown => {
      if (typeof each === 'string' && each.length > bound.text) {
        isCut = true
        return `${each.slice(0, bound.text).toWellFormed()}… (${each.length - bound.text} more characters)`
      }
      if (Array.isArray(each) && each.length > bound.items) {
        isCut = true
        return [...(each.slice(0, bound.items) as unknown[]), `… (${each.length - bound.items} more)`]
      }
      return typeof each === 'bigint' ? String(each) : each
    }
    const text = JSON.stringify(value, (_key, each: unknown) => cut(each))
    const whole = isCut ? `{"isCut":true,"answer":${text}}` : text
    if (whole.length <= maxLength) return whole
  }
  return JSON.stringify({
    isCut: true,
    problem: 'The answer is too long even when it is cut: ask for less, with a lower limit or by a filter.',
  })
}
