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
