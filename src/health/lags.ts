import type { Database } from '../database/database.ts'
import { queueLagSql } from '../delivery/jobs/queue-state/queue-lag.ts'
import { readLimited } from './limited-read.ts'

/** The lag of a subscription: for how long its first event has been due that may run now. */
export interface Lag {
  /** 0 if none waits. */
  readonly lagSeconds: number
  /** In terms of `performance.now()`. */
  readonly readAt: number
}

/** The most queues that one turn reads, so that it takes some milliseconds with any number of subscriptions. */
const queuesPerTurn = 50

/** Reads the lags of subscriptions, some at a time. */
export interface LagReader {
  /**
   * Reads the lags that were read longest ago: those of one turn; or all of them, anew. Returns those known so far, by id.
   */
  read: (
    subscriptions: readonly { readonly id: number; readonly name: string }[],
    all: boolean,
  ) => Promise<ReadonlyMap<number, Lag>>
}

/** @param freshMs - a lag that was read this recently is not read again, unless all are */
export function createLagReader(
  database: Pick<Database, 'query' | 'bossSchema'>,
  freshMs: number,
): LagReader {
  const known = new Map<number, Lag>()

  async function readTurn(turn: readonly { readonly id: number; readonly name: string }[]): Promise<void> {
    const rows = await readLimited<{ id: number; due_ms: number | null; now_ms: number }>(
      database,
      `select l.*, (extract(epoch from clock_timestamp()) * 1000)::float8 as now_ms from (${queueLagSql(database, turn)}) l`,
    )
    const readAt = performance.now()
    for (const { id, due_ms, now_ms } of rows)
      known.set(id, { lagSeconds: due_ms === null ? 0 : Math.max(0, now_ms - due_ms) / 1000, readAt })
  }

  return {
    async read(subscriptions, all) {
      const ids = new Set(subscriptions.map(({ id }) => id))
      for (const id of known.keys()) if (!ids.has(id)) known.delete(id)
      const readAtOf = (id: number): number => known.get(id)?.readAt ?? Number.NEGATIVE_INFINITY
      const now = performance.now()
      const wanted = all
        ? subscriptions
        : subscriptions
            .filter(({ id }) => now - readAtOf(id) > freshMs)
            .toSorted((a, b) => readAtOf(a.id) - readAtOf(b.id))
            .slice(0, queuesPerTurn)
      for (let from = 0; from < wanted.length; from += queuesPerTurn)
        await readTurn(wanted.slice(from, from + queuesPerTurn))
      return known
    },
  }
}
