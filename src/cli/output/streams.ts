/** A stream that a run writes to. */
export interface TextStream {
  readonly write: (text: string) => void
  /** Whether a person reads it on a terminal. */
  readonly isTerminal: boolean
  /** The width of the terminal now. */
  readonly columns: number
  /** Its height now. Undefined: unknown. */
  readonly rows?: number | undefined
  /** Calls the listener whenever its size has changed, until the returned function is called. */
  readonly onResize?: ((listener: () => void) => () => void) | undefined
}
