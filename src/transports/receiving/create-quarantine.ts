import { checkActor, reasonLength, writeAudit, type Actor } from '../../audit/audit.ts'
import type { Database, Executor } from '../../database/database.ts'
import { createValues } from '../../database/statement-values.ts'
import type { BusErrorCode } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  booleanOption,
  describe,
  idOption,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
  textOption,
  timeOption,
} from '../../foundation/options.ts'
import { operationsPayload, wakeSql } from '../../outbox/relay/notifier.ts'
import {
  quarantineStates,
  type Quarantine,
  type QuarantineChange,
  type QuarantineChanged,
  type QuarantineConditions,
  type QuarantinedMessage,
  type QuarantineSelection,
  type QuarantineState,
} from './quarantine.ts'

/** Messages of one call. */
const maxChanged = 10_000

interface Row extends Record<string, unknown> {
  readonly id: string
  readonly message_id: string
  readonly has_id: boolean
  readonly receiver: string
  readonly state: QuarantineState
  readonly code: BusErrorCode
  readonly reason: string
  readonly received_from: string
  readonly content_type: string | null
  readonly is_cut: boolean
  readonly body_bytes: string
  readonly received_count: number
  readonly received_at: Date
  readonly last_received_at: Date
  readonly decided_by: string | null
  readonly decided_reason: string | null
  readonly decided_at: Date | null
  readonly event_ids: readonly string[] | null
}

const columns = `id, receiver, message_id, has_id, state, code, reason, received_from, protocol, content_type, body_bytes, is_cut,
  received_count, received_at, last_received_at, decided_by, decided_reason, decided_at, event_ids::text[] as event_ids`

interface DetailsRow extends Row {
  readonly message_key: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** @param wake - of this process: there is something to try again */
export function createQuarantine(database: Database, wake: () => void): Quarantine {
  async function change(
    what: 'retry' | 'discard',
    selection: QuarantineSelection,
    { by, reason, isDryRun }: Actor & { readonly isDryRun: boolean },
  ): Promise<QuarantineChanged> {
    const conditions = checkSelection(selection, `quarantine.${what}`)
    const from: readonly QuarantineState[] =
      what === 'discard' ? ['new', 'retrying'] : conditions.ids === undefined ? ['new'] : ['new', 'discarded']
    const { value, values } = createValues()
    const where = whereSql(conditions, value(from), value)
    const selected = `select id from bus.quarantined_messages where ${where} order by id limit ${maxChanged}`
    if (isDryRun) {
      const { rows } = await database.query<{ count: number }>(
        `select count(*)::int as count from (${selected}) s`,
        values,
      )
      return { count: rows[0]?.count ?? 0 }
    }
    const count = await database.transaction(async (client) => {
      const { rows } = await client.query<{ count: number }>(
        `with selected as (${selected} for update), changed as (
           update bus.quarantined_messages q
           set state = ${value(what === 'retry' ? 'retrying' : 'discarded')}, decided_by = ${value(by)}, decided_reason = ${value(reason ?? null)},
             decided_at = now()
           from selected s where q.id = s.id returning 1)
         select count(*)::int as count from changed`,
        values,
      )
      const changedCount = rows[0]?.count ?? 0
      if (changedCount === 0) return 0
      await writeAudit(
        client,
        { by, reason, action: `quarantine.${what}`, selection },
        { count: changedCount },
      )
      if (what === 'retry') await client.query(wakeSql, [operationsPayload])
      return changedCount
    })
    if (what === 'retry' && count > 0) wake()
    return { count }
  }

  return {
    async list(filter = {}) {
      assertObject('a filter like { receiver, state, limit }', filter)
      refuseUnknownKeys(filter, [...conditionNames, 'state', 'after', 'limit'], 'quarantine.list')
      const { state = 'new', after } = filter
      if (!quarantineStates.includes(state))
        throw invalidOption(
          `Expected \`state\` to be one of ${quarantineStates.join(', ')}, got ${describe(state)}`,
          'state',
        )
      const count = integerOption('limit', filter.limit, limits.listLimit)
      const conditions = checkConditions(filter)
      const { value, values } = createValues()
      const where = whereSql({ ...conditions, ids: undefined }, value([state]), value)
      const page = after === undefined ? '' : ` and id < ${value(idOption('after', after))}`
      const { rows } = await database.query<Row>(
        `select ${columns} from bus.quarantined_messages where ${where}${page} order by id desc limit ${count}`,
        values,
      )
      return rows.map(toMessage)
    },
    async get(id) {
      const row = await readRow(database, idOption('id', id))
      return row === undefined
        ? undefined
        : {
            ...toMessage(row),
            key: row.message_key ?? undefined,
            headers: row.headers,
            body: Buffer.from(row.body, 'hex'),
          }
    },
    retry: async (selection, given) => change('retry', selection, checkChange(given, 'quarantine.retry')),
    async discard(selection, given) {
      const checked = checkChange(given, 'quarantine.discard')
      if (!checked.isDryRun) textOption('reason', given.reason, { ...reasonLength, min: 1 })
      return change('discard', selection, checked)
    },
  }
}

async function readRow(executor: Executor, id: string): Promise<DetailsRow | undefined> {
  const { rows } = await executor.query<DetailsRow>(
    `select ${columns}, message_key, headers, encode(body, 'hex') as body from bus.quarantined_messages where id = $1`,
    [id],
  )
  return rows[0]
}

const conditionNames = ['receiver', 'code', 'from', 'to'] as const

function checkConditions(given: QuarantineConditions): QuarantineConditions {
  const { receiver, code, from, to } = given
  return {
    receiver: receiver === undefined ? undefined : textOption('receiver', receiver, { max: 100 }),
    code: code === undefined ? undefined : textOption('code', code, { max: 100 }),
    from: from === undefined ? undefined : timeOption('from', from),
    to: to === undefined ? undefined : timeOption('to', to),
  }
}

function checkSelection(given: QuarantineSelection, call: string): QuarantineSelection {
  assertObject('a selection like { receiver, code }', given)
  refuseUnknownKeys(given, [...conditionNames, 'ids'], call)
  if (Object.values(given).every((value) => value === undefined))
    throw invalidOption(
      `Expected at least one condition in the selection of ${call}: \`from: new Date(0)\` means every message`,
    )
  const { ids } = given
  if (ids !== undefined && !(Array.isArray(ids) && ids.length > 0 && ids.length <= limits.letterIdCount))
    throw invalidOption(
      `Expected \`ids\` to be a list of 1 to ${limits.letterIdCount} ids, got ${Array.isArray(ids) ? ids.length : describe(ids)}`,
      'ids',
    )
  return { ...checkConditions(given), ids: ids?.map((id: unknown) => idOption('ids', id)) }
}

function checkChange(given: QuarantineChange, call: string): Actor & { readonly isDryRun: boolean } {
  assertObject('options like { by, reason }', given)
  refuseUnknownKeys(given, ['by', 'reason', 'dryRun'], call)
  return { ...checkActor(given), isDryRun: booleanOption('dryRun', given.dryRun, false) }
}

/** Conditions that an index answers: by state and id, or by id. */
function whereSql(
  { receiver, code, from, to, ids }: QuarantineSelection,
  ofStates: string,
  value: (value: unknown) => string,
): string {
  const conditions = [`state = any (${ofStates}::text[])`]
  if (ids !== undefined) conditions.push(`id = any (${value(ids)}::uuid[])`)
  if (receiver !== undefined) conditions.push(`receiver = ${value(receiver)}`)
  if (code !== undefined) conditions.push(`code = ${value(code)}`)
  if (from !== undefined) conditions.push(`received_at >= ${value(from)}`)
  if (to !== undefined) conditions.push(`received_at < ${value(to)}`)
  return conditions.join(' and ')
}

function toMessage(row: Row): QuarantinedMessage {
  return {
    id: row.id,
    receiver: row.receiver,
    messageId: row.has_id ? row.message_id : undefined,
    state: row.state,
    code: row.code,
    reason: row.reason,
    from: row.received_from,
    contentType: row.content_type ?? undefined,
    bodyBytes: Number(row.body_bytes),
    isCut: row.is_cut,
    receivedCount: row.received_count,
    receivedAt: row.received_at,
    lastReceivedAt: row.last_received_at,
    decidedBy: row.decided_by ?? undefined,
    decidedReason: row.decided_reason ?? undefined,
    decidedAt: row.decided_at ?? undefined,
    eventIds: row.event_ids ?? [],
  }
}
