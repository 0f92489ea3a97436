/** A call to another system took too long. Whether it took effect is not known. */
class CallTimeoutError extends Error {
  override readonly name = 'TimeoutError'

  constructor(milliseconds: number) {
    super(`no acknowledgement within ${milliseconds} ms`)
  }
}

/**
 * Settles like the call, or rejects after some milliseconds, or when the signal is aborted. The call itself goes on: its result is ignored.
 */
export async function boundedCall<T>(
  call: Promise<T>,
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const aborted = (): void => reject(signal.reason)
  const timer = setTimeout(() => reject(new CallTimeoutError(timeoutMs)), timeoutMs)
  signal.addEventListener('abort', aborted, { once: true })
  try {
    signal.throwIfAborted()
    return await Promise.race([call, promise])
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', aborted)
    call.catch(() => {})
  }
}
