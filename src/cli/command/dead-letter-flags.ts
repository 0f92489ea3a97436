import type { DeadLetterConditions } from '../../delivery/operator/dead-letter-filter.ts'
import { choice, eventTypes, text, time, type Flags, type ValuesOf } from './flags.ts'

/** Which dead letters a command is about. Those of all commands that read or change dead letters. */
export const deadLetterFlags = {
  subscription: text('<name>', 'Of this subscription'),
  group: text(
    '<fingerprint>',
    'Of this group of errors: from `dead-letters groups`, or its first 6 characters or more',
  ),
  tenant: text('<id>', 'Of this tenant'),
  'error-name': text('<name>', 'Whose last error has this class, such as TypeError'),
  'error-code': text('<code>', 'Whose last error has this code, such as ECONNREFUSED'),
  state: choice(['dead', 'blocked', 'parked'], 'Whether they hold their key'),
  from: time('Dead since then or later'),
  to: time('Dead before'),
} as const satisfies Flags

/** Of what is delivered, not of what is counted. */
export const typeFlag = { type: eventTypes('Events of this type') } as const satisfies Flags

type Conditions = DeadLetterConditions & { readonly tenantId?: string | undefined }

export function conditionsOf(flags: ValuesOf<typeof deadLetterFlags>): Conditions {
  return {
    ...{ subscription: flags.subscription, fingerprint: flags.group, tenantId: flags.tenant },
    ...{ errorName: flags['error-name'], errorCode: flags['error-code'] },
    ...{ state: flags.state, from: flags.from, to: flags.to },
  }
}
