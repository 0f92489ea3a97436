/** A place in a JSON text. */
interface Cursor {
  readonly text: string
  at: number
}

const quote = 0x22
const colon = 0x3a
const backslash = 0x5c

/**
 * `JSON.parse` for a JSON text of the database, whatever its keys are.
 *
 * V8 up to 14.6, so Node 24 and 26, takes a key that is written with an escape for another one, when any text parsed before in
 * the process had an object of the same shape with a backslash in its key (nodejs/node #63785): `{"k":1,"\"":2}` comes out as
 * `{"k":1,"\\":2}` after `{"k":1,"\\":0}`. So somebody's payload could change another one's. Texts with such keys, which
 * are rare, are read here.
 */
export function parseJson(text: string): unknown {
  return hasEscapedKey(text) ? readValue({ text, at: 0 }) : JSON.parse(text)
}

/** Linear, and no more than a search for a backslash in most texts. PostgreSQL writes the colon right behind the key. */
function hasEscapedKey(text: string): boolean {
  for (let at = text.indexOf('\\'); at !== -1; at = text.indexOf('\\', at)) {
    at = endOfText(text, at)
    if (text.charCodeAt(at) === colon) return true
  }
  return false
}

/** The place behind the quote that ends the text in which `at` is. */
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

/** A text by itself is parsed as it should be: only keys of objects are not. */
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
  // Nothing, where the text is no JSON: the error is that of JSON.parse.
  return JSON.parse(found)
}

function skipBlanks(cursor: Cursor): void {
  while (' \n\r\t'.includes(cursor.text.charAt(cursor.at) || '-')) cursor.at += 1
}

function skipToNext(cursor: Cursor): void {
  skipBlanks(cursor)
  if (cursor.text[cursor.at] === ',') cursor.at += 1
  skipBlanks(cursor)
}
