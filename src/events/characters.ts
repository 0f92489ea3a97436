/**
 * Whether a text has more characters than a limit, counted as PostgreSQL counts them: an emoji outside the basic plane is one,
 * though JavaScript's `length` has it as two.
 */
export function isLonger(text: string, maxLength: number): boolean {
  if (text.length <= maxLength) return false
  return text.length > 2 * maxLength || characterCount(text) > maxLength
}

/** Characters, as PostgreSQL counts them. */
export function characterCount(text: string): number {
  let count = text.length
  // The second half of a pair belongs to the character before it.
  for (let i = 1; i < text.length; i += 1) {
    if (isLow(text.charCodeAt(i)) && isHigh(text.charCodeAt(i - 1))) count -= 1
  }
  return count
}

/** The first characters of a text, none of them cut in two. */
export function firstCharacters(text: string, count: number): string {
  if (!isLonger(text, count)) return text
  return Array.from(text.slice(0, 2 * count))
    .slice(0, count)
    .join('')
}

function isHigh(unit: number): boolean {
  return unit >= 0xd8_00 && unit <= 0xdb_ff
}

function isLow(unit: number): boolean {
  return unit >= 0xdc_00 && unit <= 0xdf_ff
}
