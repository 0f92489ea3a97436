/** The progress of a loop, for liveness: reported by the loop itself, so that it stops when the loop hangs. */
export interface LoopProgress {
  readonly name: string
  /** How late the loop is, in milliseconds: it should have gone on so long ago. 0 if it is not late. */
  readonly lateMs: number
  /** The loop goes on now, or after a rest of this length at the latest. Called at each step. */
  note: (restMs?: number) => void
  /** The loop rests until something happens, or has ended. */
  rest: () => void
}

export function createLoopProgress(name: string): LoopProgress {
  let expectedAt = performance.now()
  return {
    name,
    get lateMs() {
      return Math.max(0, performance.now() - expectedAt)
    },
    note(restMs = 0) {
      expectedAt = performance.now() + restMs
    },
    rest() {
      expectedAt = Number.POSITIVE_INFINITY
    },
  }
}
