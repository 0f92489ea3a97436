import type { Database } from '../database/database.ts'
import { createFinding, maxItems, namesOf, type Finding } from './finding.ts'
import { readLimited } from './limited-read.ts'

/** Counts stop here. */
const maxCounted = 10_000

/** Messages of a receiver. */
export interface QuarantinedCount {
  readonly receiver: string
  readonly count: number
}

/** Messages of the quarantine that nobody has decided about, by receiver, read by the index on their state. */
export async function readQuarantined(
  database: Pick<Database, 'query'>,
): Promise<readonly QuarantinedCount[]> {
  return readLimited<{ receiver: string; count: number }>(
    database,
    `select receiver, count(*)::int as count
     from (select receiver from bus.quarantined_messages where state = 'new' order by id desc limit ${maxCounted}) q
     group by 1 order by 2 desc, 1 limit ${maxItems}`,
  )
}

export async function findQuarantined(database: Pick<Database, 'query'>): Promise<readonly Finding[]> {
  const receivers = await readQuarantined(database)
  const count = receivers.reduce((sum, each) => sum + each.count, 0)
  if (count === 0) return []
  const counted = count >= maxCounted ? `${maxCounted} or more` : `${count}`
  return [
    createFinding(
      'messages-quarantined',
      `${counted} ${count === 1 ? 'message of another system' : 'messages of other systems'} could not become events and wait for a person: ${namesOf(receivers.map(({ receiver }) => receiver))}`,
      { receivers, count },
    ),
  ]
}
