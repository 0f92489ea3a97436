import { types } from 'node:util'

/**
 * `instanceof` only recognises the built-in classes of its own realm. Test runners such as jest run test code,
 * including schemas and handlers, in a separate realm; their errors, dates and promises must be recognised too.
 */
export function isError(value: unknown): value is Error {
  return value instanceof Error || types.isNativeError(value)
}

/** A Date of any realm. */
export function isDate(value: unknown): value is Date {
  return types.isDate(value)
}

/** A promise of any realm or library. Reading `then` may throw. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
