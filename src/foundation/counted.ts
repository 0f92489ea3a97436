/** A number for a person: `2,000`. */
export function count(value: number | bigint): string {
  return value.toLocaleString('en-US')
}

/** `1 event`, `2,000 events`, `2 processes`; with `isPartial`, `over 2,000 events`. Whatever is counted in a sentence goes through it. */
export function counted(value: number, noun: string, isPartial = false): string {
  const isOne = value === 1 && !isPartial
  return `${isPartial ? 'over ' : ''}${count(value)} ${isOne ? noun : pluralOf(noun)}`
}

function pluralOf(noun: string): string {
  if (/[^aeiou]y$/.test(noun)) return `${noun.slice(0, -1)}ies`
  return `${noun}${/(?:s|x|ch|sh)$/.test(noun) ? 'es' : 's'}`
}
