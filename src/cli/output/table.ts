import { pipedCell, shownCell, type Cell } from './cells.ts'
import { bold, paint, plain, type Piece } from './styled.ts'
import { cutTo, pad, visible, widthOf } from './visible-text.ts'

/** A column of a table. */
export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => Cell
  /** Numbers stand at the right. @defaultValue `'left'` */
  readonly align?: 'left' | 'right'
  /** Never cut, because people copy it: an id, the name of a subscription, an action. Other columns are cut when the terminal is narrow. */
  readonly isWhole?: boolean
  /** Sentences: cut before any other column. */
  readonly isProse?: boolean
}

const gap = '  '

/** A column that may be cut keeps so many columns of the terminal. */
const minWidth = 8

/** So much of a sentence is left as long as other columns can be cut. */
const minProseWidth = 16

/** More of a cell than this is never looked at: a cell is cut to the terminal anyway. */
const maxCellLength = 2000

/** The lines of a table for a terminal: a head, and columns as wide as their cells where there is room. */
export function tableLines<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  screen: { readonly width: number; readonly hasColour: boolean; readonly now: number },
): string[] {
  const cells = rows.map((row) =>
    columns.map(({ value }) => {
      const piece = shorten(shownCell(value(row), screen.now))
      return { piece, text: plain(piece) }
    }),
  )
  const widths = fit(
    columns.map(({ title }, index) =>
      Math.max(widthOf(title), ...cells.map((row) => widthOf(row[index]?.text ?? ''))),
    ),
    columns,
    screen.width,
  )
  const lineOf = (row: readonly { readonly piece: Piece; readonly text: string }[]): string =>
    row
      .map(({ piece, text }, index) => {
        const width = widths[index] ?? 0
        const cut = cutTo(text, width)
        const padded =
          index === columns.length - 1 && columns[index]?.align !== 'right'
            ? cut
            : pad(cut, width, columns[index]?.align === 'right' ? 'right' : 'left')
        return paint(padded, piece, screen.hasColour)
      })
      .join(gap)
      .trimEnd()
  return [columns.map(({ title }) => ({ piece: bold(title), text: title })), ...cells].map(lineOf)
}

/** The lines of a table for a program: cells between tabs, without a head. */
export function pipedLines<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string[] {
  return rows.map((row) =>
    columns
      .map(({ value }) => {
        const piece = pipedCell(value(row))
        return visible(typeof piece === 'string' ? piece : piece.text)
      })
      .join('\t'),
  )
}

function shorten(piece: Piece): Piece {
  if (typeof piece === 'string') return piece.slice(0, maxCellLength)
  return { ...piece, text: piece.text.slice(0, maxCellLength) }
}

/** Takes from the widest columns that may be cut until all fit: from sentences first. */
function fit(
  natural: readonly number[],
  columns: readonly Pick<Column<never>, 'isWhole' | 'isProse'>[],
  width: number,
): number[] {
  const widths = [...natural]
  let excess = widths.reduce((sum, each) => sum + each, 0) + gap.length * (widths.length - 1) - width
  const take = (mayBeCut: (index: number) => boolean, least: number): void => {
    while (excess > 0) {
      const cuttable = widths.map((each, index) => (mayBeCut(index) && each > least ? each : 0))
      const widest = Math.max(...cuttable)
      if (widest === 0) return
      widths[cuttable.indexOf(widest)] = widest - 1
      excess -= 1
    }
  }
  take((index) => columns[index]?.isProse === true, minProseWidth)
  take((index) => columns[index]?.isWhole !== true && columns[index]?.isProse !== true, minWidth)
  take((index) => columns[index]?.isWhole !== true, minWidth)
  return widths
}
