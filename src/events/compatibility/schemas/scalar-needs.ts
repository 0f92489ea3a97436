import { accepts } from './accepts.ts'
import { commonMultiple, isMultiple } from './decimal.ts'
import type { SchemaNode, SchemaObject } from './document.ts'
import { isWithin, numberFormats, patternAround, patternWithin, unrestricting } from './formats.ts'
import { unmet, type Need } from './needs.ts'
import { isIncluded, type TextConditions } from './pattern-inclusion.ts'
import { fitsAll } from './samples.ts'
import { boundsOf, type Part, type Shape } from './shape.ts'
import { short } from './wording.ts'

type Unmet = Extract<Need, { kind: 'unmet' }>

/** What must hold so that a number fits. */
export function numberNeeds({ shape, kind }: Part, schema: SchemaObject): readonly Need[] {
  const { lower, upper } = boundsOf(shape, kind)
  const needs: Need[] = []
  const check = (keyword: string, isMet: (bound: number) => boolean, before: unknown): void => {
    const bound = schema[keyword]
    if (typeof bound === 'number' && !isAnyInteger(bound) && !isMet(bound))
      needs.push(unmet('bounds', changed(keyword, bound, before)))
  }
  // A fraction is never an integer, so for fractions an integer bound may as well be exclusive.
  const isBeyond = (bound: number, isExclusive: boolean): boolean =>
    isExclusive || (kind === 'fraction' && Number.isInteger(bound))
  const [low, high] = [described(shape.lower), described(shape.upper)]
  check('minimum', (bound) => lower.value >= bound, low)
  check('exclusiveMinimum', (bound) => lower.value > bound || (lower.value === bound && isBeyond(bound, lower.isExclusive)), low) // prettier-ignore
  check('maximum', (bound) => upper.value <= bound, high)
  check('exclusiveMaximum', (bound) => upper.value < bound || (upper.value === bound && isBeyond(bound, upper.isExclusive)), high) // prettier-ignore
  const { multipleOf, format } = schema
  if (typeof multipleOf === 'number') {
    const steps = [
      shape.multipleOf,
      ...(kind === 'integer' ? [1, commonMultiple(1, shape.multipleOf ?? 1)] : []),
    ]
    if (!steps.some((step) => step !== undefined && isMultiple(step, multipleOf)))
      needs.push(unmet('bounds', changed('multipleOf', multipleOf, shape.multipleOf), { decides: false }))
  }
  if (typeof format === 'string' && numberFormats.has(format) && format !== 'double')
    if (!shape.formats.some((given) => isWithin(given, format)) && !isInFormat(shape, kind, format))
      needs.push(unmet('format', changed('format', format, shape.formats[0]), { decides: false }))
  return needs
}

/** The bounds that zod writes for any integer. */
function isAnyInteger(bound: number): boolean {
  return Math.abs(bound) === Number.MAX_SAFE_INTEGER
}

function isInFormat(shape: Shape, kind: Part['kind'], format: string): boolean {
  const range = { int32: [-(2 ** 31), 2 ** 31 - 1], int64: [-(2 ** 63), 2 ** 63], uint32: [0, 2 ** 32 - 1] }[
    format
  ]
  const { lower, upper } = boundsOf(shape, kind)
  return (
    kind === 'integer' &&
    range !== undefined &&
    lower.value >= (range[0] ?? 0) &&
    upper.value <= (range[1] ?? 0)
  )
}

function described({ value, isExclusive }: Shape['lower']): unknown {
  if (!Number.isFinite(value) || isAnyInteger(value)) return undefined
  return isExclusive ? `${value}, exclusive` : value
}

/** What must hold so that a text fits. */
export function textNeeds({ shape }: Part, to: SchemaNode, schema: SchemaObject): readonly Need[] {
  const conditions: TextConditions = {
    patterns: [...shape.patterns, ...shape.formats.flatMap((format) => patternAround(format) ?? [])],
    minLength: shape.minLength,
    maxLength: shape.maxLength,
  }
  const isPlain = isPlainText(shape)
  const needs: Unmet[] = []
  const include = (rule: Unmet['rule'], detail: string, target: Parameters<typeof isIncluded>[1]): void => {
    const found = isIncluded(conditions, target)
    if (found.verdict === 'within') return
    const decides =
      found.verdict === 'outside' &&
      fitsAll(shape.nodes, found.example) === true &&
      accepts(to, found.example) === false
    needs.push(unmet(rule, detail, { decides }))
  }
  const { minLength, maxLength, pattern, format, contentEncoding } = schema
  if (typeof minLength === 'number' && minLength > shape.minLength) {
    const detail = changed('minLength', minLength, shape.minLength === 0 ? undefined : shape.minLength)
    if (isPlain) needs.push(unmet('bounds', detail))
    else include('bounds', detail, { minLength, maxLength: Number.POSITIVE_INFINITY })
  }
  if (typeof maxLength === 'number' && maxLength < shape.maxLength) {
    const detail = changed(
      'maxLength',
      maxLength,
      Number.isFinite(shape.maxLength) ? shape.maxLength : undefined,
    )
    if (isPlain) needs.push(unmet('bounds', detail))
    else include('bounds', detail, { minLength: 0, maxLength })
  }
  const formatNeed = formatNeeds(shape, conditions, format, contentEncoding)
  needs.push(...formatNeed)
  if (typeof pattern === 'string' && !shape.patterns.includes(pattern)) {
    // A library's own pattern for a format is not a second finding.
    const before = needs.length
    include('format', changed('pattern', pattern, shape.patterns[0]), pattern)
    if (formatNeed.some(({ decides }) => decides)) needs.length = before
  }
  return needs
}

function formatNeeds(
  shape: Shape,
  conditions: TextConditions,
  format: unknown,
  contentEncoding: unknown,
): readonly Unmet[] {
  const isPlain = isPlainText(shape)
  const needs: Unmet[] = []
  if (
    typeof format === 'string' &&
    !numberFormats.has(format) &&
    !unrestricting.has(format) &&
    !shape.formats.some((given) => isWithin(given, format)) &&
    !isInside(conditions, format)
  )
    needs.push(unmet('format', changed('format', format, shape.formats[0]), { decides: isPlain }))
  if (contentEncoding !== undefined && contentEncoding !== format) {
    const isSame = shape.nodes.some(
      ({ schema }) => typeof schema !== 'boolean' && schema['contentEncoding'] === contentEncoding,
    )
    if (!isSame)
      needs.push(
        unmet('format', changed('contentEncoding', contentEncoding, undefined), { decides: isPlain }),
      )
  }
  return needs
}

/** Whether a text is constrained by nothing but its length. */
function isPlainText({ patterns, formats }: Shape): boolean {
  return patterns.length + formats.length === 0
}

function isInside(conditions: TextConditions, format: string): boolean {
  const pattern = patternWithin(format)
  return (
    pattern !== undefined &&
    conditions.patterns.length > 0 &&
    isIncluded(conditions, pattern).verdict === 'within'
  )
}

export function changed(keyword: string, now: unknown, before: unknown): string {
  const was =
    before === undefined
      ? 'not set'
      : typeof before === 'string' && before.endsWith(' exclusive')
        ? before
        : short(before)
  return `\`${keyword}\` is ${short(now)}, and was ${was}`
}
