import fc from 'fast-check'
import { seed } from './random.ts'

/** fast-check prints the seed of what fails. */
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed })

/** Texts that have hurt somebody before, short ones: for keys and values alike. */
const awkwardTexts = [
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '{}',
  '","',
  '\\',
  '"',
  "'",
  'NULL',
  '\u2028',
  '\ufeff',
  '\u202e',
  '😀',
  '%s',
  '\r\n',
  '$.a',
  '$1',
  ' ',
  '0',
]

const character = fc.oneof(
  fc.constantFrom(...awkwardTexts),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }).filter((text) => !text.includes('\u0000')),
)

/** A text of 1 to 255 UTF-16 units that PostgreSQL can store: what a key of an event may be. */
export const keyText: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...awkwardTexts),
  fc.string({ unit: character, minLength: 1, maxLength: 20 }),
  fc
    .string({ unit: character, minLength: 100, maxLength: 120 })
    .map((text) => text.slice(0, 255).toWellFormed()),
)

const jsonText = fc.oneof(keyText, fc.constant(''))

/** Every finite double, with those at the edges often. */
const jsonNumber = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.constantFrom(
    0,
    -0,
    5e-324,
    -5e-324,
    Number.MAX_VALUE,
    -Number.MAX_VALUE,
    2 ** 53,
    2 ** 53 + 2,
    -(2 ** 63),
    1e21,
    1e-7,
    0.1 + 0.2,
    1 / 3,
  ),
)

/** Any JSON: nested, with awkward keys, `__proto__` as a key of its own, numbers at the edges, long arrays. */
export const anyJson: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constant(null),
    fc.boolean(),
    jsonNumber,
    jsonText,
    tie('list'),
    tie('object'),
  ),
  list: fc.array(tie('any'), { maxLength: 8 }),
  object: fc
    .array(fc.tuple(jsonText, tie('any')), { maxLength: 8 })
    .map((entries) => Object.fromEntries(entries) as unknown),
}))['any']

export const uuid: fc.Arbitrary<string> = fc.uuid()
