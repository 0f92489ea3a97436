import { limits } from '../foundation/limits.ts'
import { describe, invalidOption } from '../foundation/options.ts'
import { isLonger } from '../foundation/text.ts'

/**
 * Checks the `redact` option of an event type.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function checkRedact(type: string, paths: unknown): void {
  if (paths === undefined) return
  if (!Array.isArray(paths) || paths.length > limits.redactPathCount)
    throw invalidOption(
      `Expected \`redact\` of \`${type}\` to be a list of at most ${limits.redactPathCount} paths, got ${describe(paths)}`,
      'redact',
    )
  for (const path of paths as unknown[]) {
    if (
      typeof path !== 'string' ||
      isLonger(path, limits.redactPathLength) ||
      !path.isWellFormed() ||
      isMalformed(path)
    )
      throw invalidOption(
        `Expected a path like \`card.number\` or \`items.*.email\` in \`redact\` of \`${type}\`, got ${describe(path)}`,
      )
  }
}

function isMalformed(path: string): boolean {
  return (
    path.replaceAll(/\\[\\.*]/g, '').includes('\\') || segmentsOf(path).some((segment) => segment.name === '')
  )
}

export interface Segment {
  readonly name: string
  readonly isAny: boolean
}

/** Dots separate names; a backslash escapes a dot, a star or itself. */
export function segmentsOf(path: string): readonly Segment[] {
  const parts = path.match(/(?:\\.|[^.\\])+|(?<=^|\.)(?=\.|$)/gsu) ?? ['']
  return parts.map((part) => ({ name: part.replaceAll(/\\(.)/gsu, '$1'), isAny: part === '*' }))
}
