import type { Bus } from '../../bus-interface.ts'
import { uuidShape } from '../../foundation/text.ts'
import type { Output } from '../output/output.ts'

/** Kinds of names that stand for one event each. */
const namesOfOne = ['event', 'business-id', 'idempotency-key', 'correlation', 'subject']

/**
 * The id of the event that a text names: the id itself, a business id or another name. Undefined, with a note, if it names none or several.
 *
 * @param byPayload - how a part of payloads is searched, for the note
 */
export async function findEventId(
  bus: Bus,
  text: string,
  output: Pick<Output, 'note' | 'command'>,
  byPayload = (part: string): string => output.command('events', 'find', ['--payload', part]),
): Promise<string | undefined> {
  if (uuidShape.test(text)) return text.toLowerCase()
  const { matches, isPartial } = await bus.lookup(text)
  const ids = new Set(
    matches.flatMap((match) => ('id' in match && namesOfOne.includes(match.kind) ? [match.id] : [])),
  )
  const [id] = ids
  if (id === undefined) {
    output.note(
      `Nothing in the log is named ${text}${isPartial ? ', as far as was searched: not all tenants or months were' : ''}. If it is in a payload, under paymentId for example: ${byPayload(JSON.stringify({ paymentId: text }))}`,
    )
    return undefined
  }
  if (ids.size === 1) return id
  output.note(`${text} names several events:`)
  for (const each of ids) output.note(`  ${output.command('events', 'show', each)}`)
  return undefined
}
