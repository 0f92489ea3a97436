import { maxRows } from '../command/shared-flags.ts'
import { count } from '../output/cells.ts'
import type { Output } from '../output/output.ts'

/** Says of a list without pages that it may be longer. @param narrower - what shows others, where there is something */
export function noteMoreRows(output: Output, rowCount: number, limit: number, narrower?: string): void {
  if (rowCount < limit) return
  if (limit < maxRows) output.note(`There may be more: --limit shows up to ${count(maxRows)}.`)
  else output.note(`There may be more than ${count(limit)}${narrower === undefined ? '' : `: ${narrower}`}.`)
}
