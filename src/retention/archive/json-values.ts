/**
 * The values of a row that PostgreSQL's `row_to_json` wrote, each as its JSON text, unchanged: a number keeps its digits, which `JSON.parse`
 * would not promise.
 */
export function valuesOf(line: string): Map<string, string> {
  const values = new Map<string, string>()
  let at = 1
  while (at < line.length - 1) {
    const nameEnd = stringEnd(line, at)
    const name = JSON.parse(line.slice(at, nameEnd)) as string
    const begin = nameEnd + 1
    at = valueEnd(line, begin)
    values.set(name, line.slice(begin, at))
    at += 1
  }
  return values
}

/** A row of these values, as `row_to_json` writes it. */
export function lineOf(values: ReadonlyMap<string, string>): string {
  return `{${[...values].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`
}

/** Where the string that begins here has ended. */
function stringEnd(text: string, begin: number): number {
  let at = begin + 1
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

/** Where the value that begins here has ended: at a comma or bracket of the row. */
function valueEnd(text: string, begin: number): number {
  let depth = 0
  let at = begin
  while (at < text.length) {
    const character = text[at]
    if (character === '"') {
      at = stringEnd(text, at)
      continue
    }
    if (character === '{' || character === '[') depth += 1
    else if (depth === 0 && (character === ',' || character === '}')) return at
    else if (character === '}' || character === ']') depth -= 1
    at += 1
  }
  return at
}
