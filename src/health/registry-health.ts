import type { Database } from '../database/database.ts'
import { isPausedSql } from '../delivery/flow-control/subscription-state.ts'
import { liveSeconds } from '../delivery/registry/declarations.ts'
import { canary } from '../events/event-type.ts'
import { createFinding, maxItems, namesOf, type Finding, type FindingSeverity } from './finding.ts'
import { readIdle } from './idle-subscriptions.ts'
import { readLimited } from './limited-read.ts'

/** A subscription of any service, as the registry knows it. */
interface KnownSubscription {
  readonly id: number
  readonly name: string
  readonly service: string
  /** Null unless it is paused now. */
  readonly pausedAt: string | null
  readonly pausedBy: string | null
  readonly circuitOpenedAt: string | null
  readonly circuitReason: string | null
  readonly uncoveredSince: string | null
  readonly lagLimitSeconds: number | null
  readonly isServed: boolean
}

interface KnownInstance {
  readonly id: string
  readonly service: string
  readonly host: string
  readonly pid: number
  readonly version: string
  readonly silentSeconds: number
}

interface StoppedOperation {
  readonly id: string
  readonly kind: string
  readonly reason: string | null
}

/** The subscriptions, processes and operations that the database knows. */
export interface RegistryState {
  readonly subscriptions: readonly KnownSubscription[]
  readonly instances: readonly KnownInstance[]
  readonly operations: readonly StoppedOperation[]
  /** Those that no process runs and for which nothing waits, by name. Omitted where that was not read. */
  readonly idle?: readonly string[]
  /** Migrations that the database has. */
  readonly migrationCount: number
}

/** More subscriptions than this are not read. */
const maxSubscriptions = 5000

/** A process whose heartbeat, sent every ten seconds, is missing for so long has crashed or hangs. */
const lostSeconds = 45

export function isLost({ silentSeconds }: Pick<KnownInstance, 'silentSeconds'>): boolean {
  return silentSeconds > lostSeconds
}

export async function readRegistry(database: Pick<Database, 'query'>): Promise<RegistryState> {
  const [row] = await readLimited<{ state: RegistryState }>(
    database,
    `with live as materialized (
       select distinct d.subscription_id
       from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
       where i.seen_at > clock_timestamp() - interval '${liveSeconds} seconds'
     )
     select json_build_object(
       'subscriptions', (select coalesce(json_agg(s), '[]') from (
         select s.id, s.name, s.service, case when ${isPausedSql} then s.paused_at end as "pausedAt", s.paused_by as "pausedBy", s.circuit_opened_at as "circuitOpenedAt",
           left(s.circuit_reason, 300) as "circuitReason", s.uncovered_since as "uncoveredSince",
           (s.options->>'lagLimitSeconds')::int as "lagLimitSeconds", l.subscription_id is not null as "isServed"
         from bus.subscriptions s left join live l on l.subscription_id = s.id
         order by s.name limit ${maxSubscriptions}
       ) s),
       'instances', (select coalesce(json_agg(i), '[]') from (
         select i.id, i.service, i.host, i.pid, i.version,
           round(extract(epoch from clock_timestamp() - i.seen_at))::float8 as "silentSeconds"
         from bus.instances i order by i.seen_at desc limit 1000
       ) i),
       'operations', (select coalesce(json_agg(o), '[]') from (
         select o.id, o.kind, left(o.state_reason, 300) as reason from bus.operations o where o.state = 'stopped'
         order by o.updated_at desc limit ${maxItems}
       ) o),
       'migrationCount', (select count(*) from bus.migrations)
     ) as state`,
  )
  return row?.state ?? { subscriptions: [], instances: [], operations: [], migrationCount: 0 }
}

/** The same, with what waits for those that no process runs. */
export async function readRegistryAndIdle(
  database: Pick<Database, 'query' | 'bossSchema'>,
): Promise<RegistryState> {
  const state = await readRegistry(database)
  const unserved = new Set(unservedOf(state))
  const idle = await readIdle(
    database,
    state.subscriptions.filter(({ name }) => unserved.has(name)),
    // A role that may not read the queues says what it knows.
  ).catch(() => [])
  return { ...state, idle }
}

/** The subscriptions that no process runs, but for the canary's, which only some processes have. */
export function unservedOf({ subscriptions }: RegistryState): readonly string[] {
  return subscriptions
    .filter(({ isServed, name }) => !isServed && name !== canary.subscription)
    .map(({ name }) => name)
}

/** @param migrationCount - the migrations that this version of the bus has */
export function findRegistryProblems(state: RegistryState, migrationCount: number): readonly Finding[] {
  const { subscriptions, instances, operations } = state
  const findings: Finding[] = []
  const add = <T extends { readonly name: string }>(
    code: Finding['code'],
    what: (names: string) => string,
    items: readonly T[],
    toData: (item: T) => object,
    severity?: FindingSeverity,
  ): void => {
    if (items.length === 0) return
    const data = { subscriptions: items.slice(0, maxItems).map(toData), count: items.length }
    findings.push(createFinding(code, what(namesOf(items.map(({ name }) => name))), data, severity))
  }
  add(
    'subscription-paused',
    (names) => `Paused by a person: ${names}. Their events wait`,
    subscriptions.filter(({ pausedAt }) => pausedAt !== null),
    ({ name, pausedAt, pausedBy }) => ({ name, pausedAt, pausedBy }),
  )
  add(
    'circuit-open',
    (names) => `Nearly every attempt fails: the circuit breaker has halted ${names}`,
    subscriptions.filter(({ circuitOpenedAt }) => circuitOpenedAt !== null),
    ({ name, circuitOpenedAt, circuitReason }) => ({ name, circuitOpenedAt, circuitReason }),
  )
  const unserved = new Set(unservedOf(state))
  const idle = new Set(state.idle)
  const ofService = ({ name, service }: KnownSubscription): object => ({ name, service })
  add(
    'subscription-unserved',
    (names) => `No process runs ${names}. Their events wait`,
    subscriptions.filter(({ name }) => unserved.has(name) && !idle.has(name)),
    ofService,
  )
  add(
    'subscription-unserved',
    (names) => `No process runs ${names}. Nothing waits for them yet`,
    subscriptions.filter(({ name }) => unserved.has(name) && idle.has(name)),
    ofService,
    'warning',
  )
  add(
    'events-not-covered',
    (names) => `Events wait for another version of the code: ${names}`,
    subscriptions.filter(({ uncoveredSince }) => uncoveredSince !== null),
    ({ name, uncoveredSince }) => ({ name, uncoveredSince }),
  )
  return [
    ...findings,
    ...findInstanceProblems(instances),
    ...findStopped(operations),
    ...findSchemaDifference(state.migrationCount, migrationCount),
  ]
}

function findInstanceProblems(instances: readonly KnownInstance[]): readonly Finding[] {
  const findings: Finding[] = []
  const lost = instances.filter(isLost)
  if (lost.length > 0)
    findings.push(
      createFinding(
        'instance-lost',
        `Processes have stopped their heartbeat without a stop: ${lost
          .map(({ service, host, pid }) => `${service} (${host}, ${pid})`)
          .slice(0, 3)
          .join(', ')}`,
        { instances: lost.slice(0, maxItems), count: lost.length },
      ),
    )
  const counts: Record<string, number> = {}
  for (const { version, silentSeconds } of instances)
    if (!isLost({ silentSeconds })) counts[version] = (counts[version] ?? 0) + 1
  const versions = Object.keys(counts)
  if (versions.length > 1)
    findings.push(
      createFinding(
        'versions-differ',
        `Processes with different versions of bossbus run: ${versions.join(', ')}`,
        {
          versions: counts,
        },
      ),
    )
  return findings
}

function findStopped(operations: readonly StoppedOperation[]): readonly Finding[] {
  if (operations.length === 0) return []
  const kinds = operations.map(({ kind, reason }) => `${kind}: ${reason ?? 'no reason is recorded'}`)
  return [
    createFinding(
      'operation-stopped',
      `Operations have stopped by themselves. ${kinds.slice(0, 3).join('; ')}`,
      {
        operations,
      },
    ),
  ]
}

function findSchemaDifference(applied: number, shipped: number): readonly Finding[] {
  if (applied === shipped || applied === 0) return []
  return [
    createFinding(
      'schema-differs',
      `The schema \`bus\` is at migration ${applied}, and this process knows ${shipped}: it was started before the database was migrated`,
      { applied, shipped },
    ),
  ]
}
