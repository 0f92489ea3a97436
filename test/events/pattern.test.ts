import { describe, expect, test } from 'vitest'
import { checkPattern, compilePatterns } from '../../src/events/pattern.ts'
import { roomFor } from '../support/slowness.ts'
import { cpuMsOf } from '../foundation/cpu-time.ts'
import { patternCases } from './pattern-cases.ts'
import { refusalOf } from '../foundation/refusal.ts'

describe('a pattern', () => {
  test.each([
    'note',
    'payment.paid',
    '*',
    '**',
    'payment.*',
    'payment.**',
    '*.paid',
    '*.*',
    '*.**',
    'a.*.c.**',
    'A-1_b.0',
    'a'.repeat(255),
    `${'*.'.repeat(126)}**`,
  ])('may be %s', (pattern) => {
    expect(() => checkPattern(pattern)).not.toThrow()
  })

  test.each<[unknown]>([
    [''],
    ['.'],
    ['a.'],
    ['.a'],
    ['a..b'],
    ['a**'],
    ['**a'],
    ['a*'],
    ['pay*.paid'],
    ['***'],
    ['**.a'],
    ['a.**.b'],
    ['**.**'],
    ['*.**.*'],
    [' a'],
    ['a\n'],
    ['a.b\u0000'],
    ['s3:ObjectCreated:*'],
    ['a.*b'],
    ['** '],
    [' *'],
    ['*\n'],
    ['a\u2028.*'],
    ['a'.repeat(256)],
    ['a.'.repeat(150)],
    [`${'a.'.repeat(149)}*`],
    [undefined],
    [null],
    [5],
    [['payment.*']],
    [{ toString: () => 'payment.*' }],
    [/payment/],
    [Symbol('payment')],
  ])('is not %j', async (pattern) => {
    const error = await refusalOf(() => checkPattern(pattern))
    expect(error).toMatchObject({ code: 'BUS_INVALID_PATTERN', name: 'ConfigurationError', retryable: false })
    expect(error.message).toMatch(/^Expected an event name or a pattern like .* got .{1,80}$/s)
  })
})

describe('matching', () => {
  test.each(patternCases)('%s against %s is %s', (type, pattern, matches) => {
    expect(compilePatterns([pattern])(type)).toBe(matches)
  })

  test('is true when one of several patterns matches', () => {
    const matches = compilePatterns(['note', 'payment.paid', 'order.*', 'usage.**'])
    expect(['note', 'payment.paid', 'order.placed', 'usage.a.b.c'].every(matches)).toBe(true)
    expect(['notes', 'payment.refunded', 'order', 'order.a.b', 'usage', ''].some(matches)).toBe(false)
  })

  test('is false without patterns', () => {
    expect(compilePatterns([])('note')).toBe(false)
  })

  test('takes names for names, whatever they mean in a regular expression or an object', () => {
    const matches = compilePatterns(['a.b', 'constructor', '__proto__.*'])
    expect(['a.b', 'constructor', '__proto__.x'].every(matches)).toBe(true)
    expect(['axb', 'toString', '__proto__', 'a.bc'].some(matches)).toBe(false)
  })

  test('agrees with a slow, plain reading of the rules', () => {
    const segments = ['a', 'b', 'c']
    const types = sequences(segments, 4)
    const patterns = [...sequences(['a', 'b', '*'], 3), '**', 'a.**', '*.**', 'a.*.**', '*.b.**']
    const disagreements = patterns.flatMap((pattern) => {
      const matches = compilePatterns([pattern])
      const differs = (type: string): boolean =>
        matches(type) !== plainlyMatches(pattern.split('.'), type.split('.'))
      return types.filter(differs).map((type) => `${pattern} against ${type}`)
    })
    expect(types.length * patterns.length).toBeGreaterThan(4000)
    expect(disagreements).toEqual([])
  })

  test('judges 100,000 random and hostile texts in less than a second', () => {
    const patterns = ['payment.paid', 'a.*.*.*.b', `${'*.'.repeat(126)}**`, `${'a.'.repeat(100)}*`, '*.b.**']
    const hostile = [
      '.'.repeat(255),
      'a.'.repeat(127),
      '*'.repeat(255),
      `${'a'.repeat(254)}!`,
      '**.'.repeat(85),
      '',
    ]
    const texts = Array.from({ length: 100_000 }, (_, i) =>
      i % 2 === 0 ? (hostile[(i / 2) % hostile.length] ?? '') : randomText(i),
    )
    const matches = compilePatterns(patterns)
    expect(cpuMsOf(() => texts.filter(matches))).toBeLessThan(roomFor(1000))
    // Fewer of these: nearly all end in an error, and its stack is what takes the time.
    expect(cpuMsOf(() => texts.slice(0, 10_000).filter(isPattern))).toBeLessThan(roomFor(1000))
  })

  test('judges one enormous text in less than a second', () => {
    const enormous = 'a.'.repeat(500_000)
    expect(cpuMsOf(() => compilePatterns(['*.b.**', 'a.*'])(enormous))).toBeLessThan(roomFor(1000))
    expect(cpuMsOf(() => isPattern(enormous))).toBeLessThan(roomFor(1000))
  })
})

function isPattern(text: string): boolean {
  try {
    checkPattern(text)
    return true
  } catch {
    return false
  }
}

/** Every dotted text of one to `most` of the segments. */
function sequences(segments: readonly string[], most: number): string[] {
  if (most === 1) return [...segments]
  const shorter = sequences(segments, most - 1)
  return [
    ...new Set([...shorter, ...shorter.flatMap((rest) => segments.map((segment) => `${segment}.${rest}`))]),
  ]
}

function plainlyMatches([pattern, ...patterns]: string[], [segment, ...segments]: string[]): boolean {
  if (pattern === '**') return segment !== undefined
  if (pattern === undefined || segment === undefined) return pattern === segment
  return (pattern === '*' || pattern === segment) && plainlyMatches(patterns, segments)
}

/** Reproducible: a linear congruential generator over letters that matter to patterns. */
function randomText(seed: number): string {
  const letters = 'ab.*-_A0 '
  let state = seed
  return Array.from({ length: seed % 60 }, () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296
    return letters[state % letters.length]
  }).join('')
}
