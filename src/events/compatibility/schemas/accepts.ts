import { isMultiple } from './decimal.ts'
import { entriesOf, isObject, listOf, textsOf, type SchemaNode } from './document.ts'
import { fitsFormat, numberFormats } from './formats.ts'
import { canonical } from './canonical.ts'
import { literalsOf } from './literals.ts'
import { followPattern } from './pattern-inclusion.ts'
import { typesOf } from './types-of.ts'

/** Whether a value fits a schema. Undefined if that cannot be told. */
export type Answer = boolean | undefined

/** Keywords that constrain a value but are not evaluated here. */
const unread = ['unevaluatedProperties', 'unevaluatedItems', 'dependencies', 'contentEncoding']

/**
 * Whether a value of a schema, such as one of its `enum`, fits another schema.
 *
 * @param isReader - whether properties that the schema does not name are ignored, whatever it states about them
 */
export function accepts(
  node: SchemaNode,
  value: unknown,
  isReader = node.document.isReader,
  depth = 0,
): Answer {
  const { schema, document } = node
  if (typeof schema === 'boolean') return schema
  if (depth > 200) return undefined
  const at = (part: unknown, inner: unknown): Answer =>
    accepts(document.nodeOf(part), inner, isReader, depth + 1)
  const answers: Answer[] = []
  for (const keyword of ['$ref', '$dynamicRef', '$recursiveRef']) {
    const reference = schema[keyword]
    if (typeof reference !== 'string') continue
    const target = document.resolve(node, keyword, reference)
    answers.push(target === undefined ? undefined : accepts(target, value, isReader, depth + 1))
  }
  if (Object.hasOwn(schema, 'const')) answers.push(canonical(value) === canonical(schema['const']))
  if (Array.isArray(schema['enum'])) answers.push(textsOfList(schema['enum']).has(canonical(value)))
  if (schema['type'] !== undefined) {
    const types = new Set(typesOf(value))
    answers.push([schema['type']].flat().some((type) => types.has(type as string)))
  }
  // Below `not` and `if`, accepting less would accept more.
  const exactly = (part: unknown): Answer => accepts(document.nodeOf(part), value, false, depth + 1)
  answers.push(...combined(schema, value, (part) => at(part, value), exactly))
  for (const keyword of unread) {
    const isLeftAlone = isReader && keyword === 'unevaluatedProperties' && schema[keyword] === false
    if (schema[keyword] !== undefined && schema[keyword] !== true && !isLeftAlone) answers.push(undefined)
  }
  if (typeof value === 'number') answers.push(...numberAnswers(schema, value))
  else if (typeof value === 'string') answers.push(...textAnswers(schema, value))
  else if (Array.isArray(value)) answers.push(...arrayAnswers(schema, value, at))
  else if (isObject(value)) answers.push(...objectAnswers(schema, value, at, isReader))
  return all(answers)
}

const listTexts = new WeakMap<readonly unknown[], ReadonlySet<string>>()

/** The values of a list as canonical texts. Cached: lists may be long, and are queried for each value of another list. */
function textsOfList(list: readonly unknown[]): ReadonlySet<string> {
  let texts = listTexts.get(list)
  if (texts === undefined) {
    texts = new Set(list.map(canonical))
    listTexts.set(list, texts)
  }
  return texts
}

/** Conjunction: one false answer decides. */
export function all(answers: readonly Answer[]): Answer {
  if (answers.includes(false)) return false
  return answers.includes(undefined) ? undefined : true
}

function some(answers: readonly Answer[]): Answer {
  if (answers.includes(true)) return true
  return answers.includes(undefined) ? undefined : false
}

function not(answer: Answer): Answer {
  return answer === undefined ? undefined : !answer
}

function combined(
  schema: Readonly<Record<string, unknown>>,
  value: unknown,
  at: (part: unknown) => Answer,
  exactly: (part: unknown) => Answer,
): Answer[] {
  const answers = listOf(schema['allOf']).map(at)
  if (Array.isArray(schema['anyOf'])) {
    const { texts, others } = literalsOf(schema['anyOf'])
    answers.push(texts.size > 0 && texts.has(canonical(value)) ? true : some(others.map(at)))
  }
  if (Array.isArray(schema['oneOf'])) {
    const { texts, others, areDistinct } = literalsOf(schema['oneOf'])
    const each = areDistinct
      ? [texts.size > 0 && texts.has(canonical(value)), ...others.map(at)]
      : schema['oneOf'].map(at)
    const count = each.filter((answer) => answer === true).length
    answers.push(count > 1 ? false : each.includes(undefined) ? undefined : count === 1)
  }
  if (schema['not'] !== undefined) answers.push(not(exactly(schema['not'])))
  if (schema['if'] !== undefined) {
    const condition = exactly(schema['if'])
    const [then, otherwise] = [at(schema['then'] ?? true), at(schema['else'] ?? true)]
    answers.push(
      condition === true ? then : condition === false ? otherwise : then === otherwise ? then : undefined,
    )
  }
  return answers
}

function numberAnswers(schema: Readonly<Record<string, unknown>>, value: number): Answer[] {
  const answers: Answer[] = []
  const check = (keyword: string, fits: (bound: number) => boolean): void => {
    const bound = schema[keyword]
    if (typeof bound === 'number') answers.push(fits(bound))
  }
  check('minimum', (bound) => value >= bound)
  check('maximum', (bound) => value <= bound)
  check('exclusiveMinimum', (bound) => value > bound)
  check('exclusiveMaximum', (bound) => value < bound)
  check('multipleOf', (bound) => isMultiple(value, bound))
  if (numberFormats.has(schema['format'])) answers.push(undefined)
  return answers
}

function textAnswers(schema: Readonly<Record<string, unknown>>, value: string): Answer[] {
  const answers: Answer[] = []
  const { length } = Array.from(value)
  const { minLength, maxLength, pattern, format } = schema
  if (typeof minLength === 'number') answers.push(length >= minLength)
  if (typeof maxLength === 'number') answers.push(length <= maxLength)
  if (typeof pattern === 'string') answers.push(matches(pattern, value))
  if (typeof format === 'string' && !numberFormats.has(format)) {
    const answer = fitsFormat(value, format)
    // A pattern next to a format is how the library checks that format.
    answers.push(answer === undefined && typeof pattern === 'string' ? true : answer)
  }
  return answers
}

/** Undefined if the pattern is not valid. */
export function matches(pattern: string, text: string): Answer {
  const followed = text.length > 12 ? followPattern(pattern, text) : undefined
  if (followed !== undefined) return followed
  for (const flags of ['u', ''])
    try {
      return new RegExp(pattern, flags).test(text)
    } catch {
      // Not valid with this flag.
    }
  return undefined
}

function arrayAnswers(
  schema: Readonly<Record<string, unknown>>,
  value: readonly unknown[],
  at: (part: unknown, inner: unknown) => Answer,
): Answer[] {
  const prefix = listOf(schema['prefixItems'])
  const answers = value.map((item, index) => at(prefix[index] ?? schema['items'] ?? true, item))
  const { minItems, maxItems, uniqueItems, contains, minContains = 1, maxContains } = schema
  if (typeof minItems === 'number') answers.push(value.length >= minItems)
  if (typeof maxItems === 'number') answers.push(value.length <= maxItems)
  if (uniqueItems === true) answers.push(new Set(value.map(canonical)).size === value.length)
  if (contains !== undefined) {
    const found = value.map((item) => at(contains, item))
    const [least, most] = [
      found.filter((answer) => answer === true).length,
      found.filter((answer) => answer !== false).length,
    ]
    const [min, max] = [Number(minContains), Number(maxContains ?? Number.POSITIVE_INFINITY)]
    answers.push(least >= min && most <= max ? true : most < min || least > max ? false : undefined)
  }
  return answers
}

function objectAnswers(
  schema: Readonly<Record<string, unknown>>,
  value: Readonly<Record<string, unknown>>,
  at: (part: unknown, inner: unknown) => Answer,
  isReader: boolean,
): Answer[] {
  const names = Object.keys(value)
  const properties = isObject(schema['properties']) ? schema['properties'] : {}
  const patterns = entriesOf(schema['patternProperties'])
  const answers: Answer[] = textsOf(schema['required']).map((name) => Object.hasOwn(value, name))
  const { minProperties, maxProperties, propertyNames, additionalProperties } = schema
  if (typeof minProperties === 'number') answers.push(names.length >= minProperties)
  if (typeof maxProperties === 'number') answers.push(names.length <= maxProperties)
  for (const [name, inner] of Object.entries(value)) {
    if (propertyNames !== undefined) answers.push(at(propertyNames, name))
    const matching = patterns.filter(([pattern]) => matches(pattern, name) !== false)
    if (Object.hasOwn(properties, name)) answers.push(at(properties[name], inner))
    for (const [pattern, part] of matching) {
      const answer = at(part, inner)
      answers.push(matches(pattern, name) === undefined && answer === false ? undefined : answer)
    }
    if (Object.hasOwn(properties, name) || matching.length > 0 || additionalProperties === undefined) continue
    if (additionalProperties !== false || !isReader) answers.push(at(additionalProperties, inner))
  }
  for (const [name, needed] of entriesOf(schema['dependentRequired']))
    if (Object.hasOwn(value, name))
      answers.push(textsOf(needed).every((other) => Object.hasOwn(value, other)))
  for (const [name, part] of entriesOf(schema['dependentSchemas']))
    if (Object.hasOwn(value, name)) answers.push(at(part, value))
  return answers
}
