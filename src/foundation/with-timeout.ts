/** Time limit for a database answer that a caller must not have to wait for. */
const answerLimitMs = 5000

/**
 * Settles like `work`, or after `timeoutMs` with what `onTimeout` returns or throws. The timer is cleared; `work` is not cancelled.
 */
export async function withTimeout<T, U>(
  work: Promise<T>,
  timeoutMs: number,
  onTimeout: () => U,
): Promise<Awaited<T | U>> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs)
  }).then(onTimeout)
  try {
    return await Promise.race([work, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Settles like `work`, a call of the database, or rejects after five seconds. */
export async function withAnswerLimit<T>(work: Promise<T>): Promise<T> {
  return withTimeout(work, answerLimitMs, (): never => {
    throw new Error(`no answer from the database within ${answerLimitMs} ms`)
  }) as Promise<T>
}

/** Waits for `work`, at most until the given moment of `performance.now()`. */
export async function waitUntil(deadline: number, work: Promise<unknown>): Promise<void> {
  await withTimeout(work, Math.max(0, deadline - performance.now()), () => {})
}
