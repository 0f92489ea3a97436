import { limits } from '../foundation/limits.ts'
import { isLonger } from '../foundation/text.ts'

/** Characters that a name must not contain: controls, line and paragraph separators, lone surrogates, noncharacters. */
const illegal = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}]/u

/** Dot-separated segments; none is empty, none contains a star. */
const segments = /^[^.*]+(?:\.[^.*]+)*$/u

/**
 * Whether a text is a valid event type name: 1 to 255 characters in dot-separated, non-empty segments. Every character
 * is allowed except `*`, which patterns use, and invisible ones: control characters, line and paragraph separators,
 * Unicode noncharacters, and leading or trailing spaces. Names are compared character by character: `é` as one
 * character and `é` as two are different names.
 */
export function isEventTypeName(name: string): boolean {
  return (
    !isLonger(name, limits.typeLength) && segments.test(name) && !illegal.test(name) && name.trim() === name
  )
}

/**
 * The type of the events by which the bus tests itself, the tenant that they are of, and the subscription that takes them. No pattern matches
 * the type, and no catalogue and no service may have the names.
 */
export const canary = Object.freeze({
  type: 'bossbus.canary',
  tenantId: 'bossbus',
  subscription: 'bossbus.canary',
})
