/** How long the database may take to answer what nobody is to wait for. */
const timeoutMs = 5000

export async function beforeTimeout<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no answer from the database within ${timeoutMs} ms`)),
      timeoutMs,
    )
  })
  try {
    return await Promise.race([work, timeout])
  } finally {
    clearTimeout(timer)
  }
}

/** Waits for work, but no longer than up to a moment of `performance.now()`. */
export async function within(deadline: number, work: Promise<unknown>): Promise<void> {
  const remainingMs = Math.max(0, deadline - performance.now())
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, remainingMs)
  })
  await Promise.race([work, timeout])
  clearTimeout(timer)
}
