import { styleText } from 'node:util'
import { visible } from './visible-text.ts'

type Format = Parameters<typeof styleText>[0]

/** A piece of a line: a text, or one with a style. Either is made visible, so that no text can command the terminal. */
export type Piece = string | Styled

/** A text with a style, which is shown if colours are on. */
export interface Styled {
  readonly text: string
  readonly format: Format
}

const styled =
  (format: Format) =>
  (text: string): Styled => ({ text, format })

export const bold = styled('bold')
export const quiet = styled('dim')
export const red = styled('red')
export const green = styled('green')
export const yellow = styled('yellow')
const cyan = styled('cyan')

const stateStyles: Readonly<Record<string, (text: string) => Styled>> = {
  ...{ dead: red, error: red, behind: red, 'circuit open': red, unserved: red, stopped: red },
  ...{ retrying: yellow, paused: yellow, warning: yellow, expired: yellow },
  ...{ delivered: green, active: green, done: green, ok: green },
  ...{ delivering: cyan, running: cyan },
}

/** The name of a state in its colour: of a delivery, a subscription, an operation, or how severe a finding is. */
export function state(name: string): Piece {
  return Object.hasOwn(stateStyles, name) ? (stateStyles[name]?.(name) ?? name) : name
}

/** The text of a piece, visible and without its style. */
export function plain(piece: Piece): string {
  return visible(typeof piece === 'string' ? piece : piece.text)
}

/** A visible text in the style of a piece. */
export function paint(text: string, piece: Piece, hasColour: boolean): string {
  return typeof piece === 'string' || !hasColour
    ? text
    : styleText(piece.format, text, { validateStream: false })
}

/** Whether to use colours: `--no-color` and `NO_COLOR` count first, then `FORCE_COLOR`, then the terminal. */
export function hasColour(
  env: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
  isRefused: boolean,
): boolean {
  if (isRefused || (env['NO_COLOR'] ?? '') !== '') return false
  const force = env['FORCE_COLOR']
  if (force !== undefined) return force !== '0' && force !== 'false'
  return isTerminal && env['TERM'] !== 'dumb'
}
