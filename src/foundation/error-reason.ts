import { isError } from './cross-realm.ts'
import { leftOut, messageOf, withoutWrapper } from './error-redaction.ts'
import { firstCharacters } from './text.ts'

/** Maximum number of causes in a reason, on all levels together. */
const maxCauses = 8

/** Maximum number of errors of an AggregateError in a reason: `connect` has one for each address of a name. */
const maxErrors = 4

/** Maximum length of a reason. */
const maxLength = 2100

/** Lengths that each message is cut to, the longest first, until the reason fits: the last cause says most. */
const messageLengths = [2000, 500, 300, 200]

/**
 * Why something failed: the message of the thrown value and of its causes, such as `fetch failed, caused by connect
 * ECONNREFUSED 127.0.0.1:9`. The errors of an AggregateError count as causes of it: `connect ECONNREFUSED ::1:9 and connect
 * ECONNREFUSED 127.0.0.1:9`. A cause is named with its code, and with the address of its connection, if its message does not. A text
 * that an earlier message contains is not repeated. The number of causes and the length are bounded for any thrown value.
 *
 * Omitted are the parameters that Drizzle's wrapper lists (they may hold a payload), the values that PostgreSQL quotes,
 * and user names and passwords in URLs, on every level.
 */
export function reasonOf(thrown: unknown): string {
  const said = withoutRepetitions(partsOf(thrown))
  const written = messageLengths.map((length) => join(said, length))
  return (
    written.find((reason) => reason.length <= maxLength) ?? firstCharacters(written.at(-1) ?? '', maxLength)
  )
}

/** A message on the way from the thrown value to its first causes. */
interface Part {
  readonly text: string
  /** Where it belongs: it follows what it has caused, or another error of the same AggregateError. */
  readonly joint: ', caused by ' | ' and '
  /** Code and address that the text does not contain. */
  readonly more: string
}

/** The thrown value and its causes, each cause after what it has caused. */
function partsOf(thrown: unknown): readonly Part[] {
  const parts: Part[] = []
  const seen = new Set<unknown>()

  function visit(value: unknown, joint: Part['joint'], isCause: boolean): void {
    if (parts.length > maxCauses || seen.has(value)) return
    if (isObject(value)) seen.add(value)
    const said = readable(() => messageOf(value), 'a value that could not be read')
    const text = isCause ? said.trim() : said
    if (text !== leftOut) parts.push({ text, joint, more: isCause || text === '' ? moreOf(value, text) : '' })
    if (!isObject(value)) return
    const causes = causesOf(value)
    for (const [n, cause] of causes.slice(0, maxErrors).entries())
      visit(withoutWrapper(cause), n === 0 ? ', caused by ' : ' and ', true)
    const leftCount = causes.length - maxErrors
    if (leftCount > 0 && parts.length <= maxCauses)
      parts.push({ text: `${leftCount} more`, joint: ' and ', more: '' })
  }

  visit(withoutWrapper(thrown), ', caused by ', false)
  return parts
}

interface Thrown {
  readonly code?: unknown
  readonly cause?: unknown
  readonly errors?: unknown
  /** Of a SuppressedError. */
  readonly suppressed?: unknown
  readonly error?: unknown
  /** Of a system error. */
  readonly address?: unknown
  readonly port?: unknown
  /** Of undici's errors. */
  readonly socket?: unknown
}

function isObject(value: unknown): value is Thrown {
  return typeof value === 'object' && value !== null
}

/** What has caused an error: its `cause`, the errors of an AggregateError, both of a SuppressedError. */
function causesOf(thrown: Thrown): readonly unknown[] {
  const cause = readable(() => thrown.cause, undefined)
  const errors = readable(() => (Array.isArray(thrown.errors) ? [...(thrown.errors as unknown[])] : []), [])
  const suppressed = readable(
    () => (isError(thrown as unknown) && 'suppressed' in thrown ? [thrown.error, thrown.suppressed] : []),
    [],
  )
  return [cause, ...errors, ...suppressed].filter((each) => each !== undefined && each !== null)
}

/** The code and the address of an error, as far as its message does not contain them. */
function moreOf(value: unknown, text: string): string {
  if (!isObject(value)) return ''
  const code = readable(() => value.code, undefined)
  const found = [
    typeof code === 'string' && /^[\w.:-]{1,100}$/.test(code) ? code : '',
    readable(() => addressOf(value), ''),
  ]
  return found.filter((each) => each !== '' && !text.includes(each)).join(', ')
}

function addressOf({ address, port, socket }: Thrown): string {
  const { remoteAddress, remotePort } = (socket ?? {}) as { remoteAddress?: unknown; remotePort?: unknown }
  const host = address ?? remoteAddress
  const number = port ?? remotePort
  return typeof host === 'string' && /^[\w.:%-]{1,255}$/.test(host) && typeof number === 'number'
    ? `${host}:${number}`
    : ''
}

/** Without what another message has said already, and without the bare code of an error whose causes name it. */
function withoutRepetitions(parts: readonly Part[]): readonly Part[] {
  const said: Part[] = []
  for (const [n, part] of parts.entries()) {
    const { text, more } = part
    const isToldLater = (): boolean =>
      parts.slice(n + 1).some((later) => `${later.text} ${later.more}`.includes(more))
    if (text !== '') {
      if (!said.some((before) => before.text.includes(text))) said.push(part)
    } else if (more !== '' && !isToldLater()) said.push({ ...part, text: more, more: '' })
  }
  return said
}

function join(said: readonly Part[], length: number): string {
  const texts = said.map(({ text, joint, more }, n) => {
    const cut = text.length > length ? `${firstCharacters(text, length)}… (${text.length} characters)` : text
    return `${n === 0 ? '' : joint}${cut}${more === '' ? '' : ` (${more})`}`
  })
  return texts.join('')
}

/** What a property says, or a substitute if its getter throws. */
function readable<T>(read: () => T, otherwise: T): T {
  try {
    return read()
  } catch {
    return otherwise
  }
}
