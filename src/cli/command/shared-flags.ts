import { integer, text, toggle, type Flags } from './flags.ts'

/** No list and no page has more. */
export const maxRows = 1000

/** What a command takes that lists pages. */
export const pageFlags = {
  limit: integer('<n>', 'Rows of a page', { min: 1, max: maxRows, default: 100 }),
  after: text('<id>', 'Goes on after this one. The command for the next page is written to standard error'),
} as const satisfies Flags

/** What a command takes that lists without pages: the first rows are those that matter. */
export const rowFlags = {
  limit: integer('<n>', 'Rows', { min: 1, max: maxRows, default: 100 }),
} as const satisfies Flags

/** What a command takes that changes something. `context.actor()` reads `by` and `reason`. */
export const changeFlags = {
  by: text('<name>', 'Who does this, for the audit: BOSSBUS_BY, or the user of the operating system'),
  reason: text('<text>', 'Why, for the audit'),
  'dry-run': toggle('Only says what would be changed'),
} as const satisfies Flags

/** What a command takes that starts an operation. */
export const waitFlag = {
  wait: toggle('Waits until it is done, and tells how far it is'),
} as const satisfies Flags

/** What a command takes whose question is answered by typing a name. `context.confirm()` reads it. */
export const confirmFlag = {
  confirm: text('<name>', 'Answers the question that asks for this name'),
} as const satisfies Flags
