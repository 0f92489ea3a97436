import { inspect } from 'node:util'

/** A text that is nowhere else: placed in payloads, it must not come out of errors or logs. */
export const canary = 'canary-7f3a91c2'

/** Everything an error shows to a person or a logger, its causes and hidden properties included. */
export function shownBy(error: unknown): string {
  const { message, stack } = error as Error
  return [
    inspect(error, { depth: 10, showHidden: true, maxStringLength: null }),
    message,
    stack,
    JSON.stringify(error),
  ].join('\n')
}

/** The canary, or as much of it as would give it away. */
export const traceOfCanary = /canary-|7f3a91c2/i
