import { createHash } from 'node:crypto'
import { limits } from '../../foundation/limits.ts'
import { invalidTextReason, isLonger } from '../../foundation/text.ts'
import type { ReceivedMessage } from './source.ts'

/** The longest mark of an event of several: `#9999`. */
const indexLength = 6

/** Texts that stand for others: an id that looks like one is hashed, so that no two ids have the same text. */
const standsForOthers = /^(?:sha256|content):|#\d+$/

/**
 * The text that stands for the id of a message wherever the bus stores it: the id, or its hash if it is too long, cannot be stored, or looks
 * like a text of the bus's own. Undefined if its system gave the message none.
 *
 * @param receiver - the name of the receiver, which precedes the id in keys
 */
export function messageIdText(receiver: string, { id }: Pick<ReceivedMessage, 'id'>): string | undefined {
  if (id === undefined || id === '') return undefined
  const maxLength = limits.keyLength - receiver.length - 1 - indexLength
  if (!isLonger(id, maxLength) && invalidTextReason(id) === undefined && !standsForOthers.test(id)) return id
  // Of its code units: what is not well-formed would be the same in UTF-8.
  return `sha256:${createHash('sha256').update(id, 'utf16le').digest('hex')}`
}

/** What stands for a message without an id in the quarantine: the same for the same message. */
export function contentId(message: ReceivedMessage): string {
  const hash = createHash('sha256')
  const { from, key, contentType } = message
  const headers = Object.entries(message.headers).toSorted(([a], [b]) => (a < b ? -1 : 1))
  hash.update(JSON.stringify([from, key, contentType, headers]))
  return `content:${hash.update('\n').update(message.body).digest('hex')}`
}

/**
 * The idempotency key of an event that a message becomes: `<receiver>:<id>`, and for the second of several `<receiver>:<id>#1`.
 *
 * @param idText - what {@link messageIdText} gave
 */
export function idempotencyKeyOf(receiver: string, idText: string, index: number): string {
  return index === 0 ? `${receiver}:${idText}` : `${receiver}:${idText}#${index}`
}
