/** Control, format (bidi, zero width), line and paragraph characters: what could forge a line or hide a part of it. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

/** A text of somebody else's for an error message: bounded, well formed, on one line, whatever it is. */
export function printable(text: string, maxLength: number): string {
  const escaped = text
    .slice(0, maxLength + 1)
    .toWellFormed()
    .replaceAll(unprintable, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
  return escaped.length > maxLength ? `${escaped.slice(0, maxLength)}…` : escaped
}

/** Whether a name has characters that are no part of any name: line breaks, tabs and other controls. */
export function hasControls(name: string): boolean {
  return /\p{Cc}/u.test(name)
}

/** JSON text without characters that some viewers take for the end of a line, or that turn its direction. */
export function escapeUnprintable(json: string): string {
  return json.replaceAll(unprintable, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      const unit = character.charCodeAt(i).toString(16).padStart(4, '0')
      return `\\u${unit}`
    }).join(''),
  )
}
