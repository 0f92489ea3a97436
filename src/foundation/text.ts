/** Control, format (bidi, zero width), line and paragraph characters, which could forge a line or hide part of it. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** Untrusted text for an error message: bounded, well-formed, and on one line. */
export function printable(text: string, maxLength: number): string {
  const escaped = text
    .slice(0, maxLength + 1)
    .toWellFormed()
    .replaceAll(unprintable, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
  return escaped.length > maxLength ? `${escaped.slice(0, maxLength)}…` : escaped
}

/** Whether a name contains control characters, such as line breaks or tabs, which no name may contain. */
export function hasControls(name: string): boolean {
  return /\p{Cc}/u.test(name)
}

/** JSON text without characters that some viewers treat as a line end, or that change the text direction. */
export function escapeUnprintable(json: string): string {
  return json.replaceAll(unprintable, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      const unit = character.charCodeAt(i).toString(16).padStart(4, '0')
      return `\\u${unit}`
    }).join(''),
  )
}

/**
 * Whether a text has more characters than a limit, counted like PostgreSQL: an emoji outside the basic plane is one
 * character, although JavaScript's `length` counts two.
 */
export function isLonger(text: string, maxLength: number): boolean {
  if (text.length <= maxLength) return false
  return text.length > 2 * maxLength || characterCount(text) > maxLength
}

/** The number of characters, counted like PostgreSQL. */
export function characterCount(text: string): number {
  let count = text.length
  // The second a lone surrogate belongs to the character before it.
  for (let i = 1; i < text.length; i += 1) {
    if (isLow(text.charCodeAt(i)) && isHigh(text.charCodeAt(i - 1))) count -= 1
  }
  return count
}

/** The first characters of a text; no surrogate pair is split. */
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

/** Why PostgreSQL cannot store a text, or undefined if it can. */
export function invalidTextReason(text: string): string | undefined {
  if (text.includes('\u0000')) return 'a NUL character'
  if (!text.isWellFormed()) return 'a lone surrogate'
  return undefined
}

/** Maximum number of path keys in an error message. */
const maxShownKeys = 8

/** A path for an error message, bounded and printable for any keys. */
export function printablePath(path: readonly (string | number)[]): string {
  const shown = path.slice(0, maxShownKeys).map((key) => printable(String(key), 40))
  return path.length > maxShownKeys ? `${shown.join('.')}.…` : shown.join('.')
}

export const uuidShape = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
