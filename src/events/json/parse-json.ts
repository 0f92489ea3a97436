/** A position in a JSON text. */
interface Cursor {
  readonly text: string
  /** Makes the value of a number. */
  readonly toNumber: (digits: string) => unknown
  at: number
}

const quote = 0x22
const colon = 0x3a
const backslash = 0x5c

/**
 * `JSON.parse` for JSON text from the database, safe for any keys.
 *
 * V8 up to 14.6 (Node 24 and 26) can mistake a key that is written with an escape for another one, if any text parsed
 * earlier in the process had an object of the same shape with a backslash in its key (nodejs/node #63785):
 * `{"k":1,"\"":2}` is parsed as `{"k":1,"\\":2}` after `{"k":1,"\\":0}`. One payload could so change another one. Texts
 * with such keys are rare, and are parsed here.
 */
export function parseJson(text: string): unknown {
  return hasEscapedKey(text) ? readValue({ text, at: 0, toNumber: Number }) : JSON.parse(text)
}

/**
 * The same, but numbers that no JavaScript number is equal to are given as `toNumber` makes them of their digits: integers beyond 2^53, for
 * example, or more than 17 digits. Other numbers are numbers.
 *
 * @param text - valid JSON
 * @defaultValue of `toNumber`: the digits as a text
 */
export function parseJsonExactly(text: string, toNumber = (digits: string): unknown => digits): unknown {
  if (!/[\d.]{16}|\d[eE]/.test(text)) return parseJson(text)
  return readValue({
    text,
    at: 0,
    toNumber: (digits) => (isSameNumber(digits, String(Number(digits))) ? Number(digits) : toNumber(digits)),
  })
}

/** Linear; for most texts no more than a search for a backslash. PostgreSQL writes the colon directly after the key. */
function hasEscapedKey(text: string): boolean {
  for (let at = text.indexOf('\\'); at !== -1; at = text.indexOf('\\', at)) {
    at = endOfText(text, at)
    if (text.charCodeAt(at) === colon) return true
  }
  return false
}

/** The position after the closing quote of the string that contains `at`. */
function endOfText(text: string, at: number): number {
  let end = at
  while (end < text.length && text.charCodeAt(end) !== quote)
    end += text.charCodeAt(end) === backslash ? 2 : 1
  return end + 1
}

function readValue(cursor: Cursor): unknown {
  skipBlanks(cursor)
  switch (cursor.text[cursor.at]) {
    case '{':
      return readObject(cursor)
    case '[':
      return readList(cursor)
    case '"':
      return readText(cursor)
    default:
      return readRest(cursor)
  }
}

function readObject(cursor: Cursor): Record<string, unknown> {
  const entries: [string, unknown][] = []
  cursor.at += 1
  skipBlanks(cursor)
  while (cursor.text[cursor.at] !== '}') {
    const key = readText(cursor)
    skipBlanks(cursor)
    cursor.at += 1
    entries.push([key, readValue(cursor)])
    skipToNext(cursor)
  }
  cursor.at += 1
  return Object.fromEntries(entries)
}

function readList(cursor: Cursor): unknown[] {
  const items: unknown[] = []
  cursor.at += 1
  skipBlanks(cursor)
  while (cursor.text[cursor.at] !== ']') {
    items.push(readValue(cursor))
    skipToNext(cursor)
  }
  cursor.at += 1
  return items
}

/** A string on its own is parsed correctly; only keys of objects are affected. */
function readText(cursor: Cursor): string {
  const start = cursor.at
  cursor.at = endOfText(cursor.text, start + 1)
  return JSON.parse(cursor.text.slice(start, cursor.at)) as string
}

/** A number, true, false or null. */
function readRest(cursor: Cursor): unknown {
  const start = cursor.at
  const scalar = /[\w.+-]+/y
  scalar.lastIndex = start
  const [found = ''] = scalar.exec(cursor.text) ?? []
  cursor.at = start + found.length
  if (/^-?\d/.test(found)) return cursor.toNumber(found)
  // Empty if the text is not valid JSON: JSON.parse then throws its own error.
  return JSON.parse(found)
}

/** Whether two numbers in decimal digits are equal, however they are written. */
function isSameNumber(a: string, b: string): boolean {
  return a === b || decimalOf(a) === decimalOf(b)
}

/** A number as its digits without zeros around them, and the power of ten that they are multiplied by. */
function decimalOf(number: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(number) ?? []
  const digits = whole + fraction
  let [start, end] = [0, digits.length]
  while (digits[start] === '0') start += 1
  while (end > start && digits[end - 1] === '0') end -= 1
  if (start === end) return digits === '' ? number : '0'
  return `${sign}${digits.slice(start, end)}e${Number(exponent) - fraction.length + digits.length - end}`
}

function skipBlanks(cursor: Cursor): void {
  while (' \n\r\t'.includes(cursor.text.charAt(cursor.at) || '-')) cursor.at += 1
}

function skipToNext(cursor: Cursor): void {
  skipBlanks(cursor)
  if (cursor.text[cursor.at] === ',') cursor.at += 1
  skipBlanks(cursor)
}
