import { hostname } from 'node:os'
import type { PgBoss } from 'pg-boss'
import { DatabaseError } from '../../foundation/errors.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { withLock } from '../../database/advisory-lock.ts'
import type { Database, Executor } from '../../database/database.ts'
import { version } from '../../foundation/version.ts'
import { clearOverrides } from '../flow-control/overrides.ts'
import { reofferDeclinedJobs } from './coverage.ts'
import { liveSeconds, readDeclarations, retireDeclarations, type Registration } from './declarations.ts'
import { registerSubscriptions } from './registry.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import { locks } from '../../database/locks.ts'
import { ensureQueues } from '../jobs/queues.ts'

/** How often a process sends its heartbeat. */
const heartbeatIntervalMs = 10_000

/** How often the leader looks for declarations that no process has any more. */
const retireIntervalMs = 60_000

/**
 * A declaration is retired when no process has had it for this long while others have another one: long enough for a
 * process to be restarted during a deployment. It is measured by the clock of the observing process, not of the server.
 */
const retireAfterMs = 300_000

/** The state that a process reports in `bus.instances`. */
interface InstanceState {
  readonly relay: string
  readonly inFlightCount: number
}

/** Keeps this process's row in `bus.instances` and its registration current. */
export interface InstanceHeartbeat {
  /**
   * Sends a heartbeat if it is time, and repairs the registration. Called by the maintenance, not by a timer of its
   * own, so that it stops if the maintenance does.
   */
  maintain: (isLeader: boolean) => Promise<void>
  /** From now on the row reports this state. Until then it reports a process whose relay is stopped. */
  report: (state: () => InstanceState) => void
  /** Writes the row of this process now: what it declares has changed. */
  announce: () => Promise<void>
  /** Makes the next call of `maintain` check the registration. */
  recheckRegistration: () => void
  /** Deletes the row of this process. Its declarations remain active for a while. */
  leave: () => Promise<void>
}

export interface InstanceHeartbeatParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly service: string
  readonly instanceId: string
  readonly subscriptions: readonly Subscription[]
  /** Kept current: what this process registers again. */
  readonly registrations: Map<string, Registration>
  readonly logger: BusLogger
  /** Called while operations run. */
  readonly onOperations: () => void
  /** The clock for durations, in milliseconds. @defaultValue performance.now */
  readonly now?: () => number
}

interface ActiveRow extends Record<string, unknown> {
  readonly id: number
  readonly subscription_id: number
  readonly name: string
}

/** Inserts the row of a process that has registered its subscriptions, and keeps it current. */
export async function startInstanceHeartbeat(parts: InstanceHeartbeatParts): Promise<InstanceHeartbeat> {
  const { database, boss, service, instanceId, subscriptions, registrations, logger } = parts
  const { now = () => performance.now() } = parts
  let state = (): InstanceState => ({ relay: 'stopped', inFlightCount: 0 })
  let heartbeatAt = Number.NEGATIVE_INFINITY
  let retiredAt = now()
  let wasConflicting = false
  /** Since when no process has had each declaration. */
  const missingSince = new Map<number, number>()
  /** When the row of each process was last seen to change. */
  const changedAt = new Map<string, { readonly seenAt: string; readonly at: number }>()

  /** In one statement: writes the row of this process, counts how much of its registration still exists, and looks for operations. */
  async function sendHeartbeat(): Promise<boolean> {
    const { relay, inFlightCount } = state()
    const mine = [...registrations]
    const { rows } = await database.query<{ count: number; has_operations: boolean }>(
      `with seen as (
         insert into bus.instances (id, service, host, pid, version, seen_at, relay, in_flight_count, declarations)
         values ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7, $8::int[])
         on conflict (id) do update set seen_at = excluded.seen_at, relay = excluded.relay,
           in_flight_count = excluded.in_flight_count, declarations = excluded.declarations
       )
       select count(*)::int as count, exists (select from bus.operations where state = 'running') as has_operations
       from unnest($8::int[], $9::int[], $10::text[]) as m (declaration_id, subscription_id, name)
       join bus.subscriptions s on s.id = m.subscription_id and s.name = m.name
       join bus.declarations d on d.id = m.declaration_id and d.subscription_id = s.id and d.retired_at is null`,
      [
        instanceId,
        service,
        hostname(),
        process.pid,
        version,
        relay,
        inFlightCount,
        mine.map(([, { declarationId }]) => declarationId),
        mine.map(([, { subscriptionId }]) => subscriptionId),
        mine.map(([name]) => name),
      ],
    )
    heartbeatAt = now()
    if (rows[0]?.has_operations === true) parts.onOperations()
    return rows[0]?.count === mine.length
  }

  /** The registry was emptied or restored from an older state, or this process was taken for dead. */
  async function registerAgain(): Promise<void> {
    const knownIds = new Map([...registrations].map(([name, { subscriptionId }]) => [name, subscriptionId]))
    const again = await registerSubscriptions(database, boss, service, subscriptions, knownIds)
    const moved = [...again].filter(([name, { subscriptionId }]) => knownIds.get(name) !== subscriptionId)
    if (moved.length > 0) {
      if (!wasConflicting)
        logger.error(
          { subscriptions: moved.map(([name]) => name) },
          'subscriptions of this process have different ids than at its start: restart it, it delivers nothing for them',
        )
      wasConflicting = true
      return
    }
    wasConflicting = false
    for (const [name, registration] of again) registrations.set(name, registration)
    logger.warn(
      { subscriptions: [...knownIds.keys()] },
      'the registration of this process was missing: its subscriptions were registered again',
    )
    await sendHeartbeat()
  }

  /** Retires declarations that no live process has, if another declaration of the subscription is live. */
  async function retireAbandoned(): Promise<void> {
    const declared = await readDeclared(database)
    const { rows: active } = await database.query<ActiveRow>(
      `select d.id, d.subscription_id, s.name
       from (select id, subscription_id, count(*) over (partition by subscription_id) as variants
         from bus.declarations where retired_at is null) d
       join bus.subscriptions s on s.id = d.subscription_id
       where d.variants > 1`,
    )
    const live = new Set<number>()
    for (const { id, seenAt, declarations } of declared) {
      const before = changedAt.get(id)
      const at = before === undefined || before.seenAt !== seenAt ? now() : before.at
      changedAt.set(id, { seenAt, at })
      if (now() - at < retireAfterMs) for (const each of declarations) live.add(each)
      else
        await database.query('delete from bus.instances where id = $1 and seen_at::text = $2', [id, seenAt])
    }
    for (const id of changedAt.keys()) if (!declared.some((row) => row.id === id)) changedAt.delete(id)
    for (const id of missingSince.keys())
      if (live.has(id) || !active.some((row) => row.id === id)) missingSince.delete(id)
    const liveSubscriptions = new Set(
      active.filter(({ id }) => live.has(id)).map(({ subscription_id }) => subscription_id),
    )
    const gone: ActiveRow[] = []
    for (const row of active) {
      if (live.has(row.id) || !liveSubscriptions.has(row.subscription_id)) continue
      const since = missingSince.get(row.id) ?? now()
      missingSince.set(row.id, since)
      if (now() - since >= retireAfterMs) gone.push(row)
    }
    if (gone.length > 0) await retire(gone)
  }

  async function retire(gone: readonly ActiveRow[]): Promise<void> {
    await withLock(database, locks.registry, async () => {
      const listed = new Set((await readDeclared(database)).flatMap(({ declarations }) => declarations))
      const ids = gone.map(({ id }) => id).filter((id) => !listed.has(id))
      if (ids.length === 0) return
      const names = gone.map(({ name }) => name)
      const known = await readDeclarations(database, names)
      // Queues first: if this process dies in between, the next run repeats all of it.
      for (const name of new Set(names)) {
        const newest = known.findLast((each) => each.name === name && each.isActive && !ids.includes(each.id))
        if (newest !== undefined) await ensureQueues(boss, { name, ...newest.options })
      }
      const retired = await database.transaction(async (client) => retireDeclarations(client, ids))
      await reofferDeclinedJobs(
        database,
        retired.map(({ name }) => name),
      )
      for (const { name, patterns } of retired)
        logger.info(
          { subscription: name, patterns },
          'a declaration of a subscription was retired: no running process has it any more',
        )
    })
  }

  await sendHeartbeat()

  return {
    async maintain(isLeader) {
      if (now() - heartbeatAt >= heartbeatIntervalMs && !(await sendHeartbeat())) await registerAgain()
      if (!isLeader || now() - retiredAt < retireIntervalMs) return
      retiredAt = now()
      await retireAbandoned()
      await clearOverrides(database)
    },
    report(reported) {
      state = reported
    },
    async announce() {
      await sendHeartbeat()
    },
    recheckRegistration() {
      heartbeatAt = Number.NEGATIVE_INFINITY
    },
    async leave() {
      await database.query('delete from bus.instances where id = $1', [instanceId])
    },
  }
}

async function readDeclared(
  executor: Executor,
): Promise<
  readonly { readonly id: string; readonly seenAt: string; readonly declarations: readonly number[] }[]
> {
  const { rows } = await executor.query<{ id: string; seenAt: string; declarations: number[] }>(
    'select id, seen_at::text as "seenAt", declarations from bus.instances',
  )
  return rows
}

/**
 * Refuses to route by a registry that lacks the declarations of a live process, because it was emptied or restored from
 * an older state: events would be delivered to nobody. The process registers again within seconds; if it dies instead,
 * it stops counting.
 *
 * @param own - the declarations of this process, whatever `bus.instances` says
 * @throws {@link DatabaseError} `BUS_REGISTRY_INCOMPLETE`
 */
export async function assertComplete(
  executor: Executor,
  loaded: readonly { readonly id: number }[],
  own: Iterable<number>,
): Promise<void> {
  const ids = new Set(loaded.map(({ id }) => id))
  const isOwnMissing = [...own].some((id) => !ids.has(id))
  const { rows } = await executor.query<{ missing: boolean }>(
    `select exists (
       select from bus.instances i cross join lateral unnest(i.declarations) as x (id)
       where i.seen_at > clock_timestamp() - ${liveSeconds} * interval '1 second' and not exists (
         select from bus.declarations d join bus.subscriptions s on s.id = d.subscription_id where d.id = x.id)
     ) as missing`,
  )
  if (!isOwnMissing && rows[0]?.missing !== true) return
  throw new DatabaseError(
    'BUS_REGISTRY_INCOMPLETE',
    'The registry lacks subscriptions of a running process: no events are dispatched until it has registered them again',
    { retryable: true },
  )
}

/** The subscriptions of all services that no process runs: their events wait. */
async function readUnserved(executor: Executor, service?: string): Promise<readonly string[]> {
  const { rows } = await executor.query<{ name: string }>(
    `select s.name from bus.subscriptions s
     where ($1::text is null or s.service = $1) and s.id not in (
       select d.subscription_id
       from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
       where i.seen_at > clock_timestamp() - ${liveSeconds} * interval '1 second')
     order by s.name limit 1000`,
    [service ?? null],
  )
  return rows.map(({ name }) => name)
}

/**
 * Logs the subscriptions of a service that this code does not declare and that no process runs: they were renamed or
 * removed, and their events would wait forever. If they cannot be read now, health reports them later.
 */
export async function warnOfUnserved(
  executor: Executor,
  service: string,
  declaredNames: readonly string[],
  logger: BusLogger,
): Promise<void> {
  const unserved = await readUnserved(executor, service).catch(() => [])
  const names = unserved.filter((name) => !declaredNames.includes(name))
  if (names.length > 0)
    logger.warn(
      { service, subscriptions: names },
      'no process runs these subscriptions of the service, and this code does not declare them: their events wait',
    )
}
