import { parseJsonExactly } from '../events/json/parse-json.ts'
import { HttpError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'

/** A payload, inside of an object. */
const maxDepth = limits.payloadDepth + 8

/**
 * Parses JSON that somebody has sent. What would not arrive as it was sent, or could do harm, is refused: a number that no JavaScript number
 * is equal to, a key like `__proto__`, too many levels.
 *
 * @param what - for messages; the text is never quoted
 * @param option - the option that it is the value of, if there is one
 * @throws an {@link HttpError} `BUS_HTTP_BAD_REQUEST`
 */
export function parseRequestJson(text: string, what: string, option?: string): unknown {
  const badRequest = (message: string): HttpError =>
    new HttpError(400, 'BUS_HTTP_BAD_REQUEST', message, { option })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw badRequest(`Expected ${what} to be JSON`)
  }
  assertHarmless(value, what, badRequest)
  return parseJsonExactly(text, () => {
    throw badRequest(
      `Expected ${what} without numbers that JavaScript cannot hold, such as integers beyond 2^53: they would change`,
    )
  })
}

type Refuse = (message: string) => HttpError

/** Not recursive, because a text of a megabyte may be half a million levels deep. */
function assertHarmless(root: unknown, what: string, badRequest: Refuse): void {
  let level: unknown[] = [root]
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth >= maxDepth) throw badRequest(`Expected ${what} to have at most ${maxDepth} levels`)
    const next: unknown[] = []
    for (const value of level) {
      if (value === null || typeof value !== 'object') continue
      if (!Array.isArray(value)) assertHarmlessKeys(value, what, badRequest)
      for (const item of Object.values(value) as unknown[])
        if (item !== null && typeof item === 'object') next.push(item)
    }
    level = next
  }
}

function assertHarmlessKeys(value: object, what: string, badRequest: Refuse): void {
  const { constructor } = value as { readonly constructor?: unknown }
  const isPoisoned =
    Object.hasOwn(value, 'constructor') &&
    constructor !== null &&
    typeof constructor === 'object' &&
    Object.hasOwn(constructor, 'prototype')
  if (isPoisoned || Object.hasOwn(value, '__proto__'))
    throw badRequest(`Expected ${what} without the keys __proto__ and constructor.prototype`)
}
