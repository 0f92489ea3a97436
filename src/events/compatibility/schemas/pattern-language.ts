/** The first and the last code point of a range, alternating. */
type Range = readonly [number, number]

/** The parts that a pattern consists of. */
export type PatternPart =
  | { readonly kind: 'set'; readonly ranges: readonly Range[] }
  | { readonly kind: 'sequence'; readonly parts: readonly PatternPart[] }
  | { readonly kind: 'choice'; readonly parts: readonly PatternPart[] }
  | { readonly kind: 'repeat'; readonly part: PatternPart; readonly min: number; readonly max: number }

export interface ParsedPattern {
  readonly part: PatternPart
  /** False if it accepts more texts than the pattern does. */
  readonly isExact: boolean
}

const lastCodePoint = 0x10_ff_ff
const anyRange: readonly Range[] = [[0, lastCodePoint]]
const digits: readonly Range[] = [[48, 57]]
const letters: readonly Range[] = [[48, 57], [65, 90], [95, 95], [97, 122]] // prettier-ignore
const blanks: readonly Range[] = [[9, 13], [32, 32], [160, 160], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f], [0x205f, 0x205f], [0x3000, 0x3000], [0xfeff, 0xfeff]] // prettier-ignore
const lineEnds: readonly Range[] = [[10, 10], [13, 13], [0x2028, 0x2029]] // prettier-ignore

const anyText: PatternPart = {
  kind: 'repeat',
  part: { kind: 'set', ranges: anyRange },
  min: 0,
  max: Number.POSITIVE_INFINITY,
}

/** Texts with a number of code points in a range. */
export function textOfLength(min: number, max: number): PatternPart {
  return { kind: 'repeat', part: { kind: 'set', ranges: anyRange }, min, max }
}

class Unsupported extends Error {}

/**
 * The texts that a pattern of JSON Schema accepts. Undefined if sets, sequences, choices and repetitions cannot express
 * it: lookarounds, back references, inner anchors.
 *
 * @param mayWiden - whether the result may accept more texts than the pattern, where it would otherwise be undefined
 */
export function parsePattern(source: string, mayWiden: boolean): ParsedPattern | undefined {
  try {
    return new PatternParser(source, mayWiden).parse()
  } catch (error) {
    if (error instanceof Unsupported) return undefined
    throw error
  }
}

class PatternParser {
  readonly #source: readonly string[]
  readonly #mayWiden: boolean
  #at = 0
  #isExact = true

  constructor(source: string, mayWiden: boolean) {
    this.#source = Array.from(source)
    this.#mayWiden = mayWiden
  }

  parse(): ParsedPattern {
    const choices: PatternPart[] = []
    do {
      const isFromStart = this.#takes('^')
      const parts = this.#sequence()
      const isToEnd = this.#takes('$')
      choices.push({
        kind: 'sequence',
        parts: [...(isFromStart ? [] : [anyText]), ...parts, ...(isToEnd ? [] : [anyText])],
      })
    } while (this.#takes('|'))
    if (this.#at < this.#source.length) throw new Unsupported()
    return { part: { kind: 'choice', parts: choices }, isExact: this.#isExact }
  }

  #takes(text: string): boolean {
    if (!this.#sees(text)) return false
    this.#at += text.length
    return true
  }

  #sees(text: string): boolean {
    return Array.from(text).every((character, index) => this.#source[this.#at + index] === character)
  }

  #next(): string {
    const character = this.#source[this.#at]
    if (character === undefined) throw new Unsupported()
    this.#at += 1
    return character
  }

  #widen(part: PatternPart): PatternPart {
    if (!this.#mayWiden) throw new Unsupported()
    this.#isExact = false
    return part
  }

  #choice(): PatternPart {
    const parts: PatternPart[] = []
    do parts.push({ kind: 'sequence', parts: this.#sequence() })
    while (this.#takes('|'))
    return { kind: 'choice', parts }
  }

  #sequence(): PatternPart[] {
    const parts: PatternPart[] = []
    while (this.#at < this.#source.length && !['|', ')', '$'].some((end) => this.#sees(end)))
      parts.push(this.#repeated(this.#single()))
    return parts
  }

  #repeated(part: PatternPart): PatternPart {
    const bounds = this.#bounds()
    if (bounds === undefined) return part
    this.#takes('?')
    const [min, max] = bounds
    if (Math.max(min, max === Number.POSITIVE_INFINITY ? 0 : max) > 1000) throw new Unsupported()
    return { kind: 'repeat', part, min, max }
  }

  #bounds(): [number, number] | undefined {
    if (this.#takes('*')) return [0, Number.POSITIVE_INFINITY]
    if (this.#takes('+')) return [1, Number.POSITIVE_INFINITY]
    if (this.#takes('?')) return [0, 1]
    const counted = /^\{(\d+)(,(\d*))?\}/.exec(this.#source.slice(this.#at, this.#at + 30).join(''))
    if (counted === null) return undefined
    this.#at += counted[0].length
    const min = Number(counted[1])
    if (counted[2] === undefined) return [min, min]
    return [min, counted[3] === '' ? Number.POSITIVE_INFINITY : Number(counted[3])]
  }

  #single(): PatternPart {
    const character = this.#next()
    switch (character) {
      case '(':
        return this.#group()
      case '[':
        return { kind: 'set', ranges: this.#set() }
      case '.':
        return { kind: 'set', ranges: complement(lineEnds) }
      case '\\':
        return this.#escaped()
      case '^':
      case '*':
      case '+':
      case '?':
        throw new Unsupported()
      default:
        return { kind: 'set', ranges: [pointOf(character)] }
    }
  }

  #group(): PatternPart {
    const isLook = ['?=', '?!', '?<=', '?<!'].some((start) => this.#takes(start))
    if (!isLook && !this.#takes('?:') && this.#takes('?<')) while (this.#next() !== '>');
    const inner = this.#choice()
    if (!this.#takes(')')) throw new Unsupported()
    return isLook ? this.#widen({ kind: 'sequence', parts: [] }) : inner
  }

  #escaped(): PatternPart {
    const character = this.#next()
    if (character === 'b' || character === 'B') return this.#widen({ kind: 'sequence', parts: [] })
    if (character === 'k' || /[1-9]/.test(character)) return this.#widen(anyText)
    if (character === 'p' || character === 'P') {
      if (!this.#takes('{')) throw new Unsupported()
      while (this.#next() !== '}');
      return this.#widen({ kind: 'set', ranges: anyRange })
    }
    return { kind: 'set', ranges: this.#escapedSet(character) }
  }

  #escapedSet(character: string): readonly Range[] {
    switch (character) {
      case 'd':
        return digits
      case 'D':
        return complement(digits)
      case 'w':
        return letters
      case 'W':
        return complement(letters)
      case 's':
        return blanks
      case 'S':
        return complement(blanks)
      case 'x':
        return [this.#hexadecimal(2)]
      case 'u': {
        if (!this.#takes('{')) return [this.#hexadecimal(4)]
        const end = this.#source.indexOf('}', this.#at)
        const range = this.#hexadecimal(end - this.#at)
        this.#at += 1
        return [range]
      }
      default: {
        const control = new Map([['n', 10], ['r', 13], ['t', 9], ['v', 11], ['f', 12], ['0', 0]]).get(character) // prettier-ignore
        if (control !== undefined) return [[control, control]]
        if (/[a-zA-Z0-9]/.test(character)) throw new Unsupported()
        return [pointOf(character)]
      }
    }
  }

  #hexadecimal(length: number): Range {
    const text = this.#source.slice(this.#at, this.#at + length).join('')
    if (!/^[0-9a-fA-F]{1,6}$/.test(text)) throw new Unsupported()
    this.#at += length
    const point = Number.parseInt(text, 16)
    return [point, point]
  }

  #set(): readonly Range[] {
    const isNegated = this.#takes('^')
    const ranges: Range[] = []
    while (!this.#takes(']')) {
      const from = this.#setItem()
      const [first] = from
      if (
        this.#sees('-') &&
        this.#source[this.#at + 1] !== ']' &&
        from.length === 1 &&
        first?.[0] === first?.[1]
      ) {
        this.#at += 1
        const [last] = this.#setItem()
        if (first === undefined || last === undefined || last[0] < first[0]) throw new Unsupported()
        ranges.push([first[0], last[1]])
      } else ranges.push(...from)
    }
    return isNegated ? complement(ranges) : ranges
  }

  #setItem(): readonly Range[] {
    const character = this.#next()
    if (character !== '\\') return [pointOf(character)]
    const escaped = this.#next()
    if (escaped === 'b') return [[8, 8]]
    if (escaped === 'p' || escaped === 'P') throw new Unsupported()
    return this.#escapedSet(escaped)
  }
}

function pointOf(character: string): Range {
  const point = character.codePointAt(0) ?? 0
  return [point, point]
}

function complement(ranges: readonly Range[]): readonly Range[] {
  const outside: Range[] = []
  let next = 0
  for (const [first, last] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (first > next) outside.push([next, first - 1])
    next = Math.max(next, last + 1)
  }
  if (next <= lastCodePoint) outside.push([next, lastCodePoint])
  return outside
}
