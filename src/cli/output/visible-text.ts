/** Control, format (bidi, zero width), line and paragraph characters: a terminal would obey them instead of showing them. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

const names: Readonly<Record<string, string>> = {
  '\n': String.raw`\n`,
  '\r': String.raw`\r`,
  '\t': String.raw`\t`,
}

/** Any text, on one line, with everything visible that a terminal would obey. */
export function visible(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(
      unprintable,
      (character) => names[character] ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
    )
}

/** Characters that take two columns: East Asian wide and full width ones, and emoji. */
const wide =
  /[\u1100-\u115F\u2E80-\u303E\u3041-\u33FF\u3400-\u4DBF\u4E00-\u9FFF\uA000-\uA4CF\uA960-\uA97F\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6\u{17000}-\u{18CFF}\u{1B000}-\u{1B2FF}\u{20000}-\u{3FFFD}]|\p{Emoji_Presentation}/u

/** Combining marks take none. */
const combining = /[\p{Mn}\p{Me}]/u

function columnsOf(character: string): number {
  if (character < '\u0300') return 1
  if (combining.test(character)) return 0
  return wide.test(character) ? 2 : 1
}

/** The columns that a visible text takes on a terminal. */
export function widthOf(text: string): number {
  let width = 0
  for (const character of text) width += columnsOf(character)
  return width
}

/** The text if it fits, else its beginning and `…`. */
export function cutTo(text: string, width: number): string {
  if (text.length <= width && widthOf(text) <= width) return text
  // Each character takes two code units at most, and few take no column.
  if (text.length <= 4 * width && widthOf(text) <= width) return text
  let taken = ''
  let used = 0
  for (const character of text) {
    const next = columnsOf(character)
    if (used + next > width - 1) break
    taken += character
    used += next
  }
  return `${taken}…`
}

/** The text with blanks up to a width, at its end or at its beginning. */
export function pad(text: string, width: number, side: 'left' | 'right' = 'left'): string {
  const blanks = ' '.repeat(Math.max(0, width - widthOf(text)))
  return side === 'right' ? blanks + text : text + blanks
}
