import { DatabaseError } from '../foundation/errors.ts'

/** A setting in the startup options of a connection, as in `-c default_transaction_read_only=on`. */
const wish = /(?:^|\s)(?:-c\s*|--)default[-_]transaction[-_]read[-_]only(?:=(\S*))?/gi

/** Whether the options of a connection ask for read-only transactions: the last one counts. */
export function wantsReadOnly(options: unknown): boolean {
  if (typeof options !== 'string') return false
  const value = [...options.matchAll(wish)].at(-1)?.[1]
  return value !== undefined && /^'?(?:on|t|tr|tru|true|y|ye|yes|1)'?$/i.test(value)
}

/** The error of a write through a connection that asks for read-only transactions. */
export function readOnlyByOption(cause?: unknown): DatabaseError {
  return new DatabaseError(
    'BUS_SETTING_UNSUPPORTED',
    'The option `database`, or its URL, asks for read-only transactions (`default_transaction_read_only` in `options`): through it the bus only reads, and nothing was written. Give a database URL without it to publish, deliver, migrate or change anything',
    { cause },
  )
}
