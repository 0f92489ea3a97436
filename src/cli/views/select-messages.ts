import type { Bus } from '../../bus-interface.ts'
import type { QuarantineSelection } from '../../transports/receiving/quarantine.ts'
import { text, time, toggle, type Flags, type ValuesOf } from '../command/flags.ts'
import { UsageError } from '../command/usage-error.ts'

/** Conditions on messages of the quarantine. */
export const messageFlags = {
  receiver: text('<name>', 'Of this receiver'),
  code: text('<code>', 'With this reason, such as BUS_INVALID_EVENT'),
  from: time('Received since then or later'),
  to: time('Received before'),
} as const satisfies Flags

export const allMessagesFlag = { all: toggle('All that nobody has decided about') } as const satisfies Flags

export function conditionsOf({ receiver, code, from, to }: ValuesOf<typeof messageFlags>): {
  [K in keyof QuarantineSelection]?: QuarantineSelection[K]
} {
  return { receiver, code, from, to }
}

/** @throws a {@link UsageError} if nothing is selected */
export function messageSelection(
  ids: readonly string[],
  flags: ValuesOf<typeof messageFlags & typeof allMessagesFlag>,
): QuarantineSelection {
  const conditions = conditionsOf(flags)
  const isFiltered = Object.values(conditions).some((value) => value !== undefined)
  if (ids.length === 0 && !isFiltered && !flags.all)
    throw new UsageError('Say which messages: ids, --receiver, --code or another filter, or --all')
  if (ids.length > 0 && flags.all) throw new UsageError('Give either ids or --all')
  if (ids.length > 0) return { ...conditions, ids }
  return flags.all ? { ...conditions, from: conditions.from ?? new Date(0) } : conditions
}

/** Calls a change until it has reached all messages: one call is about 10,000 at most. */
export async function changeAll(
  change: (selection: QuarantineSelection) => ReturnType<Bus['quarantine']['retry']>,
  selection: QuarantineSelection,
): Promise<number> {
  let total = 0
  for (;;) {
    const { count } = await change(selection)
    total += count
    if (count < 10_000) return total
  }
}
