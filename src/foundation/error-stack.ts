import { isError } from './cross-realm.ts'
import { framesOf, messageOf, withoutCredentials, withoutWrapper } from './error-redaction.ts'
import { firstCharacters } from './text.ts'

/** Maximum number of errors in a stack, and of frames of each cause: what called them is in the frames of the first. */
const maxErrors = 4
const maxCauseFrames = 5

const maxMessageLength = 500

/**
 * Where an error was created, and where its causes were: as `error.stack`, but with the messages that `reasonOf` tells, so without
 * payloads and secrets. At most `maxLength` characters. Undefined if there is none.
 */
export function stackOf(thrown: Error, maxLength: number): string | undefined {
  const lines: string[] = []
  let hasFrames = false
  const seen = new Set<unknown>()
  let current = withoutWrapper(thrown)
  while (isError(current) && !seen.has(current) && seen.size < maxErrors) {
    const frames = framesOf(current)
    hasFrames ||= frames.length > 0
    const heading = `${current.name}: ${firstCharacters(messageOf(current), maxMessageLength)}`
    lines.push(
      ...(seen.size === 0
        ? [heading, ...frames]
        : [`caused by ${heading}`, ...frames.slice(0, maxCauseFrames)]),
    )
    seen.add(current)
    current = withoutWrapper(current.cause)
  }
  return hasFrames ? firstCharacters(withoutCredentials(lines.join('\n')), maxLength) : undefined
}
