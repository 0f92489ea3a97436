import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { BusLogger } from '../../src/index.ts'
import { stderrLogger, withFields } from '../../src/foundation/logger.ts'
import { recordingLogger } from '../support/bus.ts'

describe('the logger when none is given', () => {
  let written: string[]

  beforeEach(() => {
    written = []
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      written.push(String(text))
      return true
    })
  })

  afterEach(() => {
    vi.restoreAllMocks()
  })

  test('writes a warning or an error as one JSON line on standard error', () => {
    stderrLogger.warn({ subscription: 'open-case', attempt: 2 }, 'an attempt failed')
    stderrLogger.error({ reason: 'line 1\nline 2' }, 'gone')
    expect(written).toHaveLength(2)
    for (const line of written) expect(line).toMatch(/^\{[^\n]*\}\n$/)
    expect(written.map((line) => JSON.parse(line) as unknown)).toMatchObject([
      { level: 'warn', name: 'bossbus', message: 'an attempt failed', subscription: 'open-case', attempt: 2 },
      { level: 'error', name: 'bossbus', message: 'gone', reason: 'line 1\nline 2' },
    ])
    const { time } = JSON.parse(written[0] ?? '') as { time: string }
    expect(new Date(time).toISOString()).toBe(time)
  })

  test('writes nothing for the rest', () => {
    stderrLogger.debug({ a: 1 }, 'detail')
    stderrLogger.info({ a: 1 }, 'started')
    expect(written).toEqual([])
  })

  test('keeps level, time, name and message its own', () => {
    stderrLogger.warn({ level: 'x', time: 'x', name: 'x', message: 'x', kept: 'yes' }, 'the message')
    expect(JSON.parse(written[0] ?? '')).toEqual({
      level: 'warn',
      time: expect.stringContaining('T') as string,
      name: 'bossbus',
      message: 'the message',
      kept: 'yes',
    })
  })

  test('never throws, whatever the fields are, and still writes the message', () => {
    const cycle: Record<string, unknown> = {}
    cycle['self'] = cycle
    const broken = {
      get reason(): string {
        throw new Error('no')
      },
    }
    const fields = [
      cycle,
      { count: 10n },
      broken,
      new Proxy({}, { ownKeys: () => [1] as never }),
      { f: () => 1 },
    ]
    for (const given of [...fields, null as never, undefined as never])
      stderrLogger.error(given, 'still written')
    expect(written).toHaveLength(7)
    for (const line of written)
      expect(JSON.parse(line)).toMatchObject({ level: 'error', message: 'still written' })
    expect(JSON.parse(written[1] ?? '')).toMatchObject({ count: '10' })
  })

  test('shows errors with name and message', () => {
    stderrLogger.error({ error: new TypeError('wrong') }, 'failed')
    expect(JSON.parse(written[0] ?? '')).toMatchObject({
      error: {
        name: 'TypeError',
        message: 'wrong',
        stack: expect.stringContaining('logger.test.ts') as string,
      },
    })
  })

  test('shows no parameters of errors, neither in messages nor in stacks', () => {
    const refused = new Error('refused')
    const wrapper = Object.assign(new Error('Failed query\nparams: secret', { cause: refused }), {
      params: [],
    })
    stderrLogger.error({ error: wrapper, other: new Error('a', { cause: wrapper }) }, 'failed')
    expect(written[0]).not.toContain('secret')
    expect(JSON.parse(written[0] ?? '')).toMatchObject({
      error: { message: 'refused' },
      other: { message: 'a, caused by refused' },
    })
  })
})

describe('withFields', () => {
  const levels = ['debug', 'info', 'warn', 'error'] as const

  test.each(levels)('adds its fields to each line of %s, and the line’s own win', (level) => {
    const logger = recordingLogger()
    const child = withFields(logger, { subscription: 'open-case', attempt: 1 })
    child[level]({ attempt: 2, reason: 'x' }, 'a message')
    withFields(child, { eventId: 'e1' })[level]({}, 'from further in')
    expect(logger.lines).toEqual([
      { level, fields: { subscription: 'open-case', attempt: 2, reason: 'x' }, message: 'a message' },
      { level, fields: { subscription: 'open-case', attempt: 1, eventId: 'e1' }, message: 'from further in' },
    ])
  })

  test('calls methods on their logger, so loggers that are classes work', () => {
    class Counting implements BusLogger {
      count = 0
      debug(): void {
        this.count += 1
      }
      info(): void {
        this.count += 1
      }
      warn(): void {
        this.count += 1
      }
      error(): void {
        this.count += 1
      }
    }
    const logger = new Counting()
    const child = withFields(logger, {})
    for (const level of levels) child[level]({}, 'counted')
    expect(logger.count).toBe(4)
  })

  test('leaves the fields it was given alone', () => {
    const fields = Object.freeze({ a: 1 })
    const more = Object.freeze({ b: 2 })
    withFields(recordingLogger(), fields).info(more, 'x')
    expect([fields, more]).toEqual([{ a: 1 }, { b: 2 }])
  })
})
