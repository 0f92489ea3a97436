import { countJobs } from '../../delivery/jobs/leftover-jobs.ts'
import { queueName } from '../../delivery/jobs/queues.ts'
import { findBlockedKeys } from '../../health/blocked-keys.ts'
import { readLastCanary } from '../../health/canary-result.ts'
import {
  findBehind,
  findCanaryProblem,
  findNewDeadLetters,
  findPartitionProblems,
  findRelayBehind,
  subscriptionsOf,
} from '../../health/delivery-health.ts'
import type { Finding } from '../../health/finding.ts'
import { createLagReader } from '../../health/lags.ts'
import { readOutbox } from '../../health/outbox-state.ts'
import { findQuarantined } from '../../health/quarantine-health.ts'
import { measureClock } from '../../health/process-health.ts'
import { findRegistryProblems, readRegistryAndIdle, unservedOf } from '../../health/registry-health.ts'
import { findServerProblems } from '../../health/server-health.ts'
import { readPartitions } from '../../outbox/schema/partitions.ts'
import type { DoctorFinding } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'

/** What `bus.health()` finds in the database, each part a check of its own. What concerns one process alone is left out. */
export const healthChecks: readonly Check[] = [
  {
    name: 'clock',
    needs: 'server',
    async run({ database }) {
      const finding = await measureClock(database)
      return finding === undefined ? [] : [finding]
    },
  },
  {
    name: 'transactions and replication slots',
    needs: 'supported server',
    run: async ({ database, transactionLimitSeconds }) =>
      (await findServerProblems(database, transactionLimitSeconds)).map(withSql),
  },
  {
    name: 'partitions',
    needs: 'bus',
    async run({ database }) {
      const { missing, defaultPartition } = await readPartitions(database)
      return findPartitionProblems(missing, defaultPartition)
    },
  },
  {
    name: 'outbox',
    needs: 'bus',
    run: async ({ database }) => findRelayBehind((await readOutbox(database, 0)).lagSeconds),
  },
  { name: 'subscriptions and processes', needs: 'both schemas', run: findOfRegistry },
  {
    name: 'blocked keys',
    needs: 'bus',
    run: async ({ database }) => findBlockedKeys(database),
  },
  {
    name: 'new dead letters',
    needs: 'bus',
    run: async ({ database }) => findNewDeadLetters(database),
  },
  {
    name: 'quarantine',
    needs: 'bus',
    run: async ({ database }) => findQuarantined(database),
  },
  {
    name: 'canary',
    needs: 'bus',
    run: async ({ database }) => findCanaryProblem(await readLastCanary(database)),
  },
]

async function findOfRegistry(context: CheckContext): Promise<readonly DoctorFinding[]> {
  const { database, facts } = context
  const registry = await readRegistryAndIdle(database)
  const lags = await createLagReader(database, 0).read(registry.subscriptions, true)
  // Another check compares the migrations.
  const findings = findRegistryProblems(registry, facts.shippedCount).filter(
    ({ code }) => code !== 'schema-differs',
  )
  const waiting = await countWaiting(context, unservedOf(registry))
  return [
    ...findBehind(subscriptionsOf(registry, lags)),
    ...findings.map((finding) =>
      finding.code === 'subscription-unserved' ? { ...finding, data: { ...finding.data, waiting } } : finding,
    ),
  ]
}

/** Events of queues that nobody works off are counted in so many queues, and up to so many jobs. */
const maxQueues = 20
const maxJobs = 1000

async function countWaiting(
  { database }: CheckContext,
  names: readonly string[],
): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {}
  for (const name of names.slice(0, maxQueues))
    counts[name] = (await countJobs(database, queueName(name), maxJobs)).eventCount
  return counts
}

interface Holder {
  readonly pid?: number
  readonly gid?: string
  readonly name?: string
}

/** A finding of the health that a statement mends says which. */
function withSql(finding: Finding): DoctorFinding {
  const sql = sqlOf(finding)
  return sql === undefined ? finding : { ...finding, remedy: `${finding.remedy} ${sql}` }
}

function sqlOf({ code, data }: Finding): string | undefined {
  const first = (list: unknown): Holder =>
    (Array.isArray(list) ? (list as readonly Holder[])[0] : undefined) ?? {}
  switch (code) {
    case 'old-transaction':
      return `select pg_terminate_backend(${first(data['transactions']).pid});`
    case 'prepared-transaction':
      return `rollback prepared ${literal(first(data['prepared']).gid ?? '')};`
    case 'replication-slot-inactive':
      return `select pg_drop_replication_slot(${literal(first(data['slots']).name ?? '')});`
    default:
      return undefined
  }
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}
