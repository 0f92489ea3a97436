/** What a request to a system may hold. */
export interface RequestLimits {
  readonly count: number
  /** Of all messages of a request together. */
  readonly bytes?: number | undefined
}

/**
 * Cuts messages into requests, in their order. A message that alone is larger than a request may be gets a request of its own: whether it
 * is too large is for the caller to say, before.
 */
export function inRequests<M extends { readonly bytes: number }>(
  messages: readonly M[],
  limits: RequestLimits,
): M[][] {
  const { count, bytes = Number.POSITIVE_INFINITY } = limits
  const requests: M[][] = []
  let current: M[] = []
  let size = 0
  for (const message of messages) {
    if (current.length === count || (current.length > 0 && size + message.bytes > bytes)) {
      requests.push(current)
      current = []
      size = 0
    }
    current.push(message)
    size += message.bytes
  }
  if (current.length > 0) requests.push(current)
  return requests
}
