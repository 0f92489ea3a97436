import type { Operation } from './operation.ts'

/** What statements on operations return, for operators and for tenants. */
export interface OperationRow<K extends Operation['kind'] = Operation['kind']> extends Record<
  string,
  unknown
> {
  readonly id: string
  readonly kind: K
  readonly state: Operation['state']
  readonly selection: Readonly<Record<string, unknown>>
  readonly subscriptions: readonly string[]
  readonly rate: number | null
  readonly expected: Readonly<Record<string, unknown>> | null
  readonly total: string | null
  readonly counts: Readonly<Record<string, number>>
  /** What settlements of a replay have counted and no part has added yet. */
  readonly uncounted: Readonly<Record<string, number | null>> | null
  readonly created_at: Date
  readonly updated_at: Date
  readonly finished_at: Date | null
}

/** What operators and tenants see of an operation. */
export function commonFields<K extends Operation['kind']>(
  row: OperationRow<K>,
): Omit<Operation, 'kind' | 'by' | 'reason' | 'stateBy' | 'stateReason' | 'options' | 'error'> & {
  readonly kind: K
} {
  return {
    id: row.id,
    kind: row.kind,
    state: row.state,
    selection: withoutStored(row.selection),
    subscriptions: row.subscriptions,
    rate: row.rate ?? undefined,
    expected: row.expected ?? undefined,
    totalCount: row.total === null ? undefined : Number(row.total),
    counts: withUncounted(row),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    finishedAt: row.finished_at ?? undefined,
  }
}

/** As the caller named it. */
function withoutStored(selection: OperationRow['selection']): OperationRow['selection'] {
  return Object.fromEntries(Object.entries(selection).filter(([name]) => name !== 'stored'))
}

/** What it has done so far. */
function withUncounted({
  counts,
  uncounted,
}: Pick<OperationRow, 'counts' | 'uncounted'>): Readonly<Record<string, number>> {
  const all: Record<string, number> = { ...counts }
  for (const [name, count] of Object.entries(uncounted ?? {}))
    if ((count ?? 0) > 0) all[name] = (all[name] ?? 0) + (count ?? 0)
  return all
}
