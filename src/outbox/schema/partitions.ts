import { setTimeout as pause } from 'node:timers/promises'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Database, Executor } from '../../database/database.ts'
import { toBusError } from '../../database/database-errors.ts'

/** Rows of the log that are in the default partition. */
export interface DefaultPartition {
  /** Events in the default partition, counted up to 10,000. */
  readonly eventCount: number
  /** Receipts in the default partition, counted up to 10,000. */
  readonly deliveryCount: number
  /** The consequence, and the remedy. */
  readonly advice: string
}

/** Creates the partitions of the log, and reports what it could not do. */
export interface PartitionKeeper {
  /**
   * Creates missing partitions. Resolves to whether nothing remains to be done, or nothing that this role may do. Never
   * rejects.
   */
  keep: () => Promise<boolean>
}

interface PartitionState {
  readonly defaultPartition: DefaultPartition | undefined
  /** The missing partitions of coming months. */
  readonly missing: readonly string[]
}

/** A call may find the tables in use, and a large default partition takes three calls. */
const maxCalls = 8
const pauseMs = 50

const advice =
  'a month that had begun without a partition is in the default partitions of the log and the ledger: ' +
  'its events are delivered and read like all others. Retention makes a partition of it within the hour; `await bus.prune({ by })` does it now'

/** @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED` if the role may not read them */
export async function readPartitions(executor: Executor): Promise<PartitionState> {
  const { rows } = await executor.query<{
    default_events: number
    default_deliveries: number
    missing: readonly string[]
  }>('select default_events, default_deliveries, missing from bus.partition_state()')
  const [state] = rows
  const eventCount = state?.default_events ?? 0
  const deliveryCount = state?.default_deliveries ?? 0
  return {
    defaultPartition: eventCount + deliveryCount > 0 ? { eventCount, deliveryCount, advice } : undefined,
    missing: state?.missing ?? [],
  }
}

export function createPartitionKeeper(database: Database, logger: BusLogger): PartitionKeeper {
  let toldOfRows = false

  async function keep(): Promise<boolean> {
    for (let call = 1; ; call += 1) {
      await database.query('select bus.create_partitions()')
      const { defaultPartition, missing } = await readPartitions(database)
      const isDone = missing.length === 0
      if (!isDone && call < maxCalls) {
        // Randomised, so that processes do not retry in step.
        await pause(pauseMs * (0.5 + Math.random()))
        continue
      }
      if (!isDone) logger.warn({ missing }, 'partitions of coming months could not be created yet')
      if (defaultPartition !== undefined && !toldOfRows) {
        toldOfRows = true
        logger.warn({ ...defaultPartition }, 'the default partition of the log is not empty')
      }
      return isDone
    }
  }

  return {
    async keep() {
      try {
        return await keep()
      } catch (thrown) {
        const error = toBusError(thrown)
        logger.warn(
          { reason: error.message },
          'the partitions of the coming months could not be created: run bus.migrate(), or `select bus.create_partitions()`, as the owner of the schema `bus`',
        )
        return error.code === 'BUS_PERMISSION_DENIED'
      }
    },
  }
}
