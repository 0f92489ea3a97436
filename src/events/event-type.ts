import { limits } from '../foundation/limits.ts'
import { isLonger } from '../foundation/text.ts'

/** What a name may not have: controls, line and paragraph separators, halves of surrogate pairs, noncharacters. */
const illegal = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}]/u

/** Dot-separated segments, none of them empty, none with a star. */
const segments = /^[^.*]+(?:\.[^.*]+)*$/u

/**
 * Whether a text is the name of an event type: 1 to 255 characters, in dot-separated segments, none of them empty. Every character
 * may be in it but `*`, which is that of patterns, and what nobody sees: control characters, line and paragraph separators,
 * Unicode noncharacters, and blanks at its beginning or end. Names are compared character by character: `é` as one character
 * and `é` as two are two names.
 */
export function isEventTypeName(name: string): boolean {
  return (
    !isLonger(name, limits.typeLength) && segments.test(name) && !illegal.test(name) && name.trim() === name
  )
}
