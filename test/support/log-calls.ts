import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/** A line that the package may log. */
export interface LogCall {
  readonly file: string
  readonly level: string
  readonly message: string
  /** The names of fields that stand at the call. */
  readonly fields: readonly string[]
}

const src = fileURLToPath(new URL('../../src', import.meta.url))

/** What is not a part of the bus, and the loggers themselves. */
const leftOut = /^(?:demo\/|foundation\/logger\.ts)/

/** Every line that the source logs. @throws where the message of one is not a constant */
export async function findLogCalls(): Promise<readonly LogCall[]> {
  const files = (await readdir(src, { recursive: true })).filter(
    (name) => name.endsWith('.ts') && !leftOut.test(name),
  )
  const calls = await Promise.all(
    files.toSorted().map(async (file) => logCallsIn(file, await readFile(`${src}/${file}`, 'utf8'))),
  )
  return calls.flat()
}

function logCallsIn(file: string, source: string): readonly LogCall[] {
  const text = source.replaceAll(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, '')
  const heads = /(?:\b(?:logger|log)\??\.(debug|info|warn|error)|this\.#(warn))\(/g
  return [...text.matchAll(heads)].flatMap((match) => {
    const args = argumentsAt(text, match.index + match[0].length)
    const level = match[1] ?? match[2] ?? ''
    const last = args.at(-1) ?? ''
    // It passes on what it is given: see its callers.
    if (last === 'message' && text.includes('#warn(message: string)')) return []
    return messagesIn(text, last, file).map((message) => ({
      ...{ file, level, message },
      fields: match[2] === undefined ? fieldsIn(args[0] ?? '') : [],
    }))
  })
}

/** The messages of an argument: a text, two texts to choose from, or a constant of the file. */
function messagesIn(text: string, argument: string, file: string): readonly string[] {
  const literals = literalsIn(argument)
  if (literals.length > 0) return literals
  const parts = String.raw`'(?:[^'\\]|\\.)*'(?:\s*\+\s*'(?:[^'\\]|\\.)*')*`
  const [, constant = ''] = new RegExp(String.raw`const ${argument}\s*=\s*(${parts})`).exec(text) ?? []
  if (constant === '') throw new Error(`${file} logs what is not a constant message: ${argument}`)
  return [literalsIn(constant).join('')]
}

function literalsIn(code: string): readonly string[] {
  if (code.includes('${')) return []
  return [...code.matchAll(/'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|`([^`]*)`/g)].map(
    ([, single, double, back]) => (single ?? double ?? back ?? '').replaceAll(/\\(.)/g, '$1'),
  )
}

/** The arguments of a call, from behind its bracket. */
function argumentsAt(text: string, start: number): readonly string[] {
  const args: string[] = []
  let depth = 0
  let quote = ''
  let from = start
  for (let at = start; at < text.length; at += 1) {
    const character = text[at] ?? ''
    if (quote !== '') {
      if (character === '\\') at += 1
      else if (character === quote) quote = ''
    } else if (`'"\``.includes(character)) quote = character
    else if ('([{'.includes(character)) depth += 1
    else if (character === ',' && depth === 0) {
      args.push(text.slice(from, at).trim())
      from = at + 1
    } else if (')]}'.includes(character)) {
      if (depth === 0) return [...args, text.slice(from, at).trim()].filter((arg) => arg !== '')
      depth -= 1
    }
  }
  return args
}

/** The keys of an object literal, without those of what is spread into it. */
function fieldsIn(code: string): readonly string[] {
  if (!code.startsWith('{')) return []
  return argumentsAt(code, 1).flatMap((entry) => {
    const [, name] = /^(\w+)(?::|$)/.exec(entry) ?? []
    return name === undefined ? [] : [name]
  })
}
