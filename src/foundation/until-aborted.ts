/** Settles like the call, or rejects with the reason of the signal as soon as it is aborted: for calls that cannot be cancelled. */
export async function untilAborted<T>(signal: AbortSignal, call: () => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const abort = (): void => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([call(), aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
