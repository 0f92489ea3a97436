import { commandLine, type CommandWord } from './command-line.ts'
import { jsonText } from './json-text.ts'
import { createProgress, tellElapsed, type Progress } from './progress.ts'
import { openScreen, type Screen } from './screen.ts'
import type { TextStream } from './streams.ts'
import { bold, paint, plain, type Piece } from './styled.ts'
import { pipedLines, tableLines, type Column } from './table.ts'

/**
 * What a command writes: its result to standard output, talk about it to standard error. Every text is made visible first, so hostile text
 * can be passed as it is.
 */
export interface Output {
  /** Whether `--json` is given: the result is JSON, and `line`, `heading` and `table` write nothing. */
  readonly isJson: boolean
  /** Whether a person reads the result on a terminal. */
  readonly isTerminal: boolean
  /** The width of the terminal. */
  readonly columns: number
  /** Milliseconds since 1970. */
  readonly now: () => number
  /**
   * The result of a command that lists: with `--json` a line of JSON for each row, with all its fields; on a terminal a table, or the
   * sentence `none`; elsewhere cells between tabs, and `none` as a note.
   */
  readonly list: <Row extends object>(
    rows: readonly Row[],
    columns: readonly Column<Row>[],
    none: string,
  ) => void
  /** The result of a command about one thing: with `--json` the value on one line; otherwise what `page` writes. */
  readonly object: (value: object, page: () => void) => void
  /** A line of a page. */
  readonly line: (...pieces: readonly Piece[]) => void
  /** A blank line and a heading. */
  readonly heading: (text: string) => void
  /** A table of a page. */
  readonly table: <Row>(rows: readonly Row[], columns: readonly Column<Row>[]) => void
  /** A value that is the result as it is, such as a document or a script. With `--json` too. */
  readonly raw: (text: string) => void
  /** One JSON value a line, as it happens: for commands that follow something. Writes nothing without `--json`. */
  readonly event: (value: object) => void
  /** A line that is not part of the result, to standard error. */
  readonly note: (...pieces: readonly Piece[]) => void
  /** A page that fills the terminal and is drawn again and again. Undefined elsewhere, and with `--json`. */
  readonly screen: () => Screen<Output> | undefined
  /** A command line for a person to copy, about the same database and configuration as this one. */
  readonly command: (...words: readonly CommandWord[]) => string
  /** Tells how far long work has come, to standard error. */
  readonly progress: (what: string) => Progress
  /** Waits for work, and tells for how long it has gone on, to standard error: what can say how far it is uses `progress`. */
  readonly during: <T>(what: string, work: Promise<T>) => Promise<T>
}

export interface OutputOptions {
  readonly stdout: TextStream
  readonly stderr: TextStream
  readonly isJson: boolean
  /** Options that command lines to copy need, too. @defaultValue none */
  readonly commandOptions?: readonly CommandWord[]
  readonly colours: { readonly stdout: boolean; readonly stderr: boolean }
  readonly now: () => number
}

export function createOutput(options: OutputOptions): Output {
  const { stdout, stderr, isJson, commandOptions = [], colours, now } = options
  const join = (pieces: readonly Piece[], hasColour: boolean): string =>
    pieces.map((piece) => paint(plain(piece), piece, hasColour)).join('')
  const note = (...pieces: readonly Piece[]): void => stderr.write(`${join(pieces, colours.stderr)}\n`)
  const line = (...pieces: readonly Piece[]): void => {
    if (!isJson) stdout.write(`${join(pieces, colours.stdout)}\n`)
  }
  const json = (value: object): void => stdout.write(`${jsonText(value)}\n`)
  const table = <Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void => {
    if (isJson || rows.length === 0) return
    const lines = stdout.isTerminal
      ? tableLines(rows, columns, { width: stdout.columns, hasColour: colours.stdout, now: now() })
      : pipedLines(rows, columns)
    stdout.write(`${lines.join('\n')}\n`)
  }
  // A page that fills the terminal leaves no room beside it.
  let hasScreen = false
  return {
    isJson,
    isTerminal: stdout.isTerminal,
    get columns() {
      return stdout.columns
    },
    now,
    list(rows, columns, none) {
      if (isJson) for (const row of rows) json(row)
      else if (rows.length > 0) table(rows, columns)
      else if (stdout.isTerminal) line(none)
      else note(none)
    },
    object(value, page) {
      if (isJson) json(value)
      else page()
    },
    line,
    heading(text) {
      line()
      line(bold(text))
    },
    table,
    raw: (text) => stdout.write(`${text}\n`),
    event(value) {
      if (isJson) json(value)
    },
    note,
    screen() {
      if (!stdout.isTerminal || isJson) return undefined
      hasScreen = true
      return openScreen(stdout, (page) =>
        createOutput({
          ...options,
          ...{ stdout: page, stderr: page },
          colours: { ...colours, stderr: colours.stdout },
        }),
      )
    },
    command: (...words) => commandLine(...words, ...commandOptions),
    progress: (what) => createProgress(stderr, what, now),
    during: async (what, work) => (hasScreen ? work : tellElapsed(stderr, what, now, work)),
  }
}
