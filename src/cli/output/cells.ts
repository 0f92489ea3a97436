import { count } from '../../foundation/counted.ts'
import type { Piece } from './styled.ts'

export { count, counted } from '../../foundation/counted.ts'

/** What a cell may show. Undefined is an empty cell. */
export type Cell = Piece | number | bigint | boolean | Date | readonly string[] | null | undefined

const minuteMs = 60_000
const units = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [minuteMs, 'min'],
  [1000, 's'],
] as const

/** A duration for a person: `12 ms`, `3.4 s`, `10 min`, `2 h 5 min`. */
export function duration(ms: number): string {
  const size = Math.abs(ms)
  if (size < 1000) return `${Math.round(ms)} ms`
  if (size < 10_000) return `${(ms / 1000).toFixed(1)} s`
  const index = units.findIndex(([unitMs]) => size >= unitMs)
  const [unitMs, unit] = units[index] ?? units[3]
  const whole = Math.floor(size / unitMs)
  const next = units[index + 1]
  const rest = next === undefined ? 0 : Math.floor((size % unitMs) / next[0])
  const isRestShown = next !== undefined && rest > 0 && whole < 10 && unit !== 'min'
  return `${ms < 0 ? '-' : ''}${whole} ${unit}${isRestShown ? ` ${rest} ${next[1]}` : ''}`
}

/** `10 min ago`, `in 3 s`, `now`. */
export function relativeTime(time: Date, now: number): string {
  const ms = now - time.getTime()
  if (Number.isNaN(ms)) return '?'
  if (Math.abs(ms) < 1000) return 'now'
  const text = duration(Math.sign(ms) * Math.floor(Math.abs(ms) / 1000) * 1000).replace('-', '')
  return ms > 0 ? `${text.replace('.0 s', ' s')} ago` : `in ${text.replace('.0 s', ' s')}`
}

/** A time in UTC; `?` for an invalid one. */
export function isoTime(time: Date): string {
  return Number.isNaN(time.getTime()) ? '?' : time.toISOString()
}

/** How a cell is written for a person. */
export function shownCell(cell: Cell, now: number): Piece {
  if (cell === null || cell === undefined) return ''
  if (typeof cell === 'number')
    return Number.isInteger(cell) ? count(cell) : cell.toLocaleString('en-US', { maximumFractionDigits: 2 })
  if (typeof cell === 'bigint') return count(cell)
  if (typeof cell === 'boolean') return cell ? 'yes' : 'no'
  if (cell instanceof Date) return relativeTime(cell, now)
  if (isList(cell)) return cell.join(', ')
  return cell
}

/** How a cell is written for a program: no thousands separators, times in UTC. */
export function pipedCell(cell: Cell): Piece {
  if (cell === null || cell === undefined) return ''
  // Programs read whole numbers: those of --json have all their digits.
  if (typeof cell === 'number') return String(Math.round(cell))
  if (typeof cell === 'bigint' || typeof cell === 'boolean') return String(cell)
  if (cell instanceof Date) return isoTime(cell)
  if (isList(cell)) return cell.join(',')
  return cell
}

function isList(cell: Piece | readonly string[]): cell is readonly string[] {
  return Array.isArray(cell)
}
