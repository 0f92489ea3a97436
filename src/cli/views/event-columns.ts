import type { HistoryEvent } from '../../operations/history-event.ts'
import type { Column } from '../output/table.ts'

/** The columns of a list of events. */
export const eventColumns: readonly Column<HistoryEvent>[] = [
  { title: 'ID', value: ({ id }) => id, isWhole: true },
  { title: 'TYPE', value: ({ type }) => type, isWhole: true },
  { title: 'TENANT', value: ({ tenantId }) => tenantId },
  { title: 'SUBJECT', value: ({ subject }) => subject },
  { title: 'PUBLISHED', value: ({ createdAt }) => createdAt },
]
