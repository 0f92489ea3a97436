import type { StandardIssue } from '../foundation/standard-schema.ts'
import { InvalidEventError, type EventIssue } from '../foundation/errors.ts'
import { redactIssue, redactThrown } from '../foundation/error-redaction.ts'
import { printable, printablePath } from '../foundation/text.ts'
import type { EventDefinition } from './catalogue.ts'

/**
 * Validates a payload and returns the schema's output.
 *
 * @throws an {@link InvalidEventError} `BUS_INVALID_EVENT` with the schema's findings: paths and reasons, never values
 */
export async function validatePayload(
  type: string,
  definition: EventDefinition,
  payload: unknown,
): Promise<unknown> {
  let issues: readonly EventIssue[]
  try {
    const result = await definition.schema['~standard'].validate(payload)
    if (!result.issues) return result.value
    issues = result.issues.slice(0, 20).map((issue) => describeIssue(issue, payload))
  } catch (error) {
    throw new InvalidEventError(
      'BUS_INVALID_EVENT',
      `The schema of \`${type}\` failed while validating`,
      [],
      { cause: redactThrown(error) },
    )
  }
  const summary = issues
    .map((issue) => (issue.path === '' ? issue.message : `${issue.path}: ${issue.message}`))
    .join('; ')
  throw new InvalidEventError(
    'BUS_INVALID_EVENT',
    `The payload of \`${type}\` does not fit its schema: ${summary.slice(0, 1000)}`,
    issues,
  )
}

function describeIssue(issue: StandardIssue, payload: unknown): EventIssue {
  const path = (issue.path ?? []).map((part) => String(typeof part === 'object' ? part.key : part))
  return { path: printablePath(path), message: printable(redactIssue(issue, payload), 299) }
}
