import { afterEach, describe, expect, test, vi } from 'vitest'
import { duration, relativeTime } from '../../src/cli/output/cells.ts'
import { diffLines } from '../../src/cli/output/diff-lines.ts'
import { createOutput, type Output } from '../../src/cli/output/output.ts'
import { createProgress, tellElapsed } from '../../src/cli/output/progress.ts'
import { bold, hasColour, red, state } from '../../src/cli/output/styled.ts'
import type { Column } from '../../src/cli/output/table.ts'
import { cutTo, visible, widthOf } from '../../src/cli/output/visible-text.ts'

const now = Date.UTC(2026, 10, 29, 3, 12)
const hostile = 'a\u001b]0;owned\u0007\u001b[2J\r\nb\tc\u202ed\u200be\u0000\u009bf\ud800'

interface Row {
  readonly id: string
  readonly name: string
  readonly count: number
  readonly at?: Date
}

const columns: readonly Column<Row>[] = [
  { title: 'ID', value: ({ id }) => id, isWhole: true },
  { title: 'NAME', value: ({ name }) => name },
  { title: 'COUNT', value: ({ count }) => red(String(count)), align: 'right' },
  { title: 'AT', value: ({ at }) => at },
]

function testOutput({
  width,
  isJson = false,
  colours = false,
}: {
  width?: number
  isJson?: boolean
  colours?: boolean
}) {
  const written = { out: '', err: '' }
  const stream = (name: 'out' | 'err') => ({
    write(text: string) {
      written[name] += text
    },
    isTerminal: width !== undefined,
    columns: width ?? 80,
  })
  const output: Output = createOutput({
    ...{ stdout: stream('out'), stderr: stream('err'), isJson, now: () => now },
    colours: { stdout: colours, stderr: colours },
  })
  return { output, written }
}

describe('a list', () => {
  const rows: readonly Row[] = [
    { id: '0192f7c1', name: 'short', count: 1234, at: new Date(now - 600_000) },
    { id: '0192f7c2', name: '日本語のとても長い名前です', count: 2 },
  ]

  test('is a table on a terminal, whose columns stand below each other whatever they hold', () => {
    const { output, written } = testOutput({ width: 80 })
    output.list(rows, columns, 'None.')
    expect(written.out).toBe(
      [
        'ID        NAME                        COUNT  AT',
        '0192f7c1  short                        1234  10 min ago',
        '0192f7c2  日本語のとても長い名前です      2',
        '',
      ].join('\n'),
    )
    expect(written.err).toBe('')
  })

  test('is cut to the terminal, but never in an id', () => {
    const { output, written } = testOutput({ width: 42 })
    output.list(rows, columns, 'None.')
    const lines = written.out.trimEnd().split('\n')
    expect(lines.map(widthOf).filter((width) => width > 42)).toEqual([])
    expect(lines[2]).toContain('0192f7c2  日本語')
    expect(lines[2]).toContain('…')
  })

  test('is cells between tabs in a pipe, without a head, with whole numbers and times', () => {
    const { output, written } = testOutput({})
    output.list(rows, columns, 'None.')
    expect(written.out).toBe(
      '0192f7c1\tshort\t1234\t2026-11-29T03:02:00.000Z\n0192f7c2\t日本語のとても長い名前です\t2\t\n',
    )
  })

  test('is a line of JSON for each row with --json: all fields, times in ISO 8601, bigints as text', () => {
    const { output, written } = testOutput({ isJson: true, width: 80, colours: true })
    output.list([{ ...rows[0], big: 12345678901234567890n, none: undefined }], [], 'None.')
    output.line('not shown')
    output.heading('not shown')
    expect(written.out).toBe(
      '{"id":"0192f7c1","name":"short","count":1234,"at":"2026-11-29T03:02:00.000Z","big":"12345678901234567890"}\n',
    )
  })

  test('says that it is empty: to a person as the result, otherwise as a note or not at all', () => {
    const person = testOutput({ width: 80 })
    person.output.list([], columns, 'None.')
    expect(person.written).toEqual({ out: 'None.\n', err: '' })
    const pipe = testOutput({})
    pipe.output.list([], columns, 'None.')
    expect(pipe.written).toEqual({ out: '', err: 'None.\n' })
    const json = testOutput({ isJson: true })
    json.output.list([], columns, 'None.')
    expect(json.written).toEqual({ out: '', err: '' })
  })
})

describe('hostile text', () => {
  test('is visible and commands no terminal, in lines, notes, tables and styles', () => {
    for (const width of [undefined, 200]) {
      const { output, written } = testOutput(width === undefined ? {} : { width })
      output.line(hostile, bold(hostile))
      output.note(hostile)
      output.list([{ id: hostile, name: hostile, count: 1 }], columns, 'None.')
      output.heading(hostile)
      const all = `${written.out}${written.err}`
      expect(all.replaceAll(/[\t\n]/g, '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
      expect(all).toContain(String.raw`\u{1b}]0;owned\u{7}\u{1b}[2J\r\nb\tc\u{202e}d`)
      expect(all.isWellFormed()).toBe(true)
      // No row or column is forged: a line and a note, a row (and its head), a blank line and a heading.
      expect(all.split('\n').length - 1).toBe(width === undefined ? 5 : 6)
    }
  })

  test('stays what it is in JSON, and commands no terminal there', () => {
    const { output, written } = testOutput({ isJson: true })
    output.object({ text: hostile.replace('\ud800', '') }, () => {})
    expect(written.out.trimEnd()).not.toMatch(/[\p{Cc}\p{Cf}]/u)
    expect(JSON.parse(written.out)).toEqual({ text: hostile.replace('\ud800', '') })
  })

  test('of a megabyte is cut in a table', () => {
    const { output, written } = testOutput({ width: 80 })
    output.list([{ id: 'a', name: 'x'.repeat(1_000_000), count: 1 }], columns, 'None.')
    expect(written.out.length).toBeLessThan(300)
  })

  test.each([
    ['abc', 3],
    ['日本', 4],
    ['e\u0301', 1],
    ['🎉', 2],
    ['한국', 4],
  ])('the width of %s is %i', (text, width) => {
    expect(widthOf(text)).toBe(width)
    expect(visible(text)).toBe(text)
  })

  test('is cut before a wide character that would not fit', () => {
    expect(cutTo('日本語', 6)).toBe('日本語')
    expect(cutTo('日本語', 5)).toBe('日本…')
    expect(cutTo('日本語', 4)).toBe('日…')
  })
})

test('colours are there if they are on, around text that is visible', () => {
  const { output, written } = testOutput({ width: 80, colours: true })
  output.line(red('\u001b[0m'), ' ', state('dead'))
  expect(written.out).toBe('\u001b[31m\\u{1b}[0m\u001b[39m \u001b[31mdead\u001b[39m\n')
})

test.each<[string, Readonly<Record<string, string>>, boolean, boolean, boolean]>([
  ['a terminal', {}, true, false, true],
  ['a pipe', {}, false, false, false],
  ['--no-color', { FORCE_COLOR: '1' }, true, true, false],
  ['NO_COLOR', { NO_COLOR: '1', FORCE_COLOR: '1' }, true, false, false],
  ['NO_COLOR without a value', { NO_COLOR: '' }, true, false, true],
  ['FORCE_COLOR', { FORCE_COLOR: '1' }, false, false, true],
  ['FORCE_COLOR=0', { FORCE_COLOR: '0' }, true, false, false],
  ['a terminal without colours', { TERM: 'dumb' }, true, false, false],
])('colours: %s', (_what, env, isTerminal, isRefused, expected) => {
  expect(hasColour(env, isTerminal, isRefused)).toBe(expected)
})

test.each([
  [12, '12 ms'],
  [3400, '3.4 s'],
  [59_000, '59 s'],
  [600_000, '10 min'],
  [7_500_000, '2 h 5 min'],
  [200_000_000, '2 d 7 h'],
])('%i ms are shown as %s', (ms, text) => {
  expect(duration(ms)).toBe(text)
})

test('times are shown from now', () => {
  expect(relativeTime(new Date(now - 600_000), now)).toBe('10 min ago')
  expect(relativeTime(new Date(now + 3000), now)).toBe('in 3 s')
  expect(relativeTime(new Date(now), now)).toBe('now')
  expect(relativeTime(new Date(Number.NaN), now)).toBe('?')
})

describe('work of which nobody knows how far it is', () => {
  afterEach(() => void vi.useRealTimers())

  async function tellingFor(seconds: number, isTerminal: boolean): Promise<string> {
    vi.useFakeTimers()
    let written = ''
    const stream = { write: (text: string) => void (written += text), isTerminal, columns: 80 }
    const work = Promise.withResolvers<string>()
    const told = tellElapsed(stream, 'Erasing\u001b', Date.now, work.promise)
    await vi.advanceTimersByTimeAsync(seconds * 1000)
    work.resolve('done')
    expect(await told).toBe('done')
    const afterwards = written
    await vi.advanceTimersByTimeAsync(60_000)
    expect(written).toBe(afterwards)
    return written
  }

  test('tells its seconds on a terminal, and takes them away at its end', async () => {
    const line = (seconds: number): string => `\r\u001b[KErasing\\u{1b}  ${seconds} s`
    expect(await tellingFor(2.5, true)).toBe(`${line(1)}${line(2)}\r\u001b[K`)
  })

  test('is a line every ten seconds in a pipe, and nothing if it is quick', async () => {
    expect(await tellingFor(25, false)).toBe('Erasing\\u{1b}: 10 s\nErasing\\u{1b}: 20 s\n')
    expect(await tellingFor(0.9, true)).toBe('')
  })
})

describe('progress', () => {
  function testProgress(isTerminal: boolean) {
    const clock = { now: 0 }
    let written = ''
    const stream = {
      write(text: string) {
        written += text
      },
      isTerminal,
      columns: 80,
    }
    return { progress: createProgress(stream, 'Redriving', () => clock.now), clock, text: () => written }
  }

  test('is a line a second in a pipe, with rate and time left', () => {
    const { progress, clock, text } = testProgress(false)
    for (const [at, done] of [
      [100, 10],
      [1000, 250],
      [1500, 400],
      [2000, 500],
    ] as const) {
      clock.now = at
      progress.at(done, 1000)
    }
    progress.end()
    expect(text()).toBe(
      'Redriving: 250 of 1,000, 250/s, 3.0 s left\nRedriving: 500 of 1,000, 250/s, 2.0 s left\n',
    )
  })

  test('is a bar on a terminal, at most ten times a second, and gone at the end', () => {
    const { progress, clock, text } = testProgress(true)
    clock.now = 1000
    progress.at(500, 1000)
    clock.now = 1050
    progress.at(600, 1000)
    expect(text()).toBe(
      `\r\u001b[KRedriving  ${'█'.repeat(12)}${'░'.repeat(12)} 50 %  500 of 1,000, 500/s, 1.0 s left`,
    )
    progress.end()
    expect(text().endsWith('\r\u001b[K')).toBe(true)
  })
})

describe('a difference of two texts', () => {
  const shown = (before: readonly string[], after: readonly string[]): string[] =>
    diffLines(before, after).map(
      ({ kind, text }) => `${kind === 'same' ? ' ' : kind === 'added' ? '+' : '-'}${text}`,
    )

  test('keeps the longest common lines, with three lines around each change', () => {
    expect(shown(['a', 'b', 'c'], ['a', 'x', 'c', 'd'])).toEqual([' a', '-b', '+x', ' c', '+d'])
    expect(shown(['a', 'b'], ['b', 'a'])).toHaveLength(3)
    expect(shown(['a'], ['a'])).toEqual([])
    expect(shown([], ['a'])).toEqual(['+a'])
    const lines = Array.from({ length: 20 }, (_, n) => `line ${n}`)
    expect(shown(lines, lines.with(10, 'changed'))).toEqual([
      ...[' line 7', ' line 8', ' line 9', '-line 10', '+changed', ' line 11', ' line 12', ' line 13'],
    ])
  })

  test('of large texts is bounded, and loses nothing', () => {
    const [before, after] = ['a', 'b'].map((name) => Array.from({ length: 5000 }, (_, n) => `${name}${n}`))
    const lines = shown(before ?? [], after ?? [])
    expect(lines).toHaveLength(10_000)
    expect([lines[0], lines[5000]]).toEqual(['-a0', '+b0'])
  })
})
