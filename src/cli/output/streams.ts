/** A stream that a run writes to. */
export interface TextStream {
  readonly write: (text: string) => void
  /** Whether a person reads it on a terminal. */
  readonly isTerminal: boolean
  /** The width of the terminal now. */
  readonly columns: number
}
