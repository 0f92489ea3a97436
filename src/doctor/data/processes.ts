import { assertComplete } from '../../delivery/registry/instance-heartbeat.ts'
import { liveSeconds } from '../../delivery/registry/declarations.ts'
import { BusError } from '../../foundation/errors.ts'
import { createFinding, namesOf } from '../../health/finding.ts'
import { found, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Relay extends Record<string, unknown> {
  readonly service: string
  readonly host: string
  readonly pid: number
  readonly relay: string
}

/** What the relays of running processes say of themselves in their heartbeats. */
export const relaysCheck: Check = {
  name: 'relays of the processes',
  needs: 'bus',
  async run({ read }): Promise<readonly DoctorFinding[]> {
    const rows = await read<Relay>(
      `select service, host, pid, relay from bus.instances
       where relay in ('failing', 'polling') and seen_at > clock_timestamp() - interval '${liveSeconds} seconds'
       order by service, host, pid limit 100`,
    )
    const of = (relay: string): readonly Relay[] => rows.filter((row) => row.relay === relay)
    const namesIn = (list: readonly Relay[]): string =>
      namesOf(list.map(({ service, host, pid }) => `${service} (${host}, ${pid})`))
    const [failing, polling] = [of('failing'), of('polling')]
    return [
      ...(failing.length > 0
        ? [
            createFinding(
              'relay-failing',
              `The relay cannot dispatch events, and tries again: ${namesIn(failing)}`,
              {
                instances: failing,
              },
            ),
          ]
        : []),
      ...(polling.length > 0
        ? [
            createFinding(
              'notifications-lost',
              `Notifications of the database do not arrive, so events come up to a second later: ${namesIn(polling)}`,
              { instances: polling },
            ),
          ]
        : []),
    ]
  },
}

/** Whether the registry has what running processes have registered: relays dispatch nothing while it has not. */
export const registryCheck: Check = {
  name: 'registry',
  needs: 'bus',
  async run({ database }) {
    try {
      await assertComplete(database, [], [])
      return []
    } catch (error) {
      if (!(error instanceof BusError) || error.code !== 'BUS_REGISTRY_INCOMPLETE') throw error
      return [
        found(
          'registry-incomplete',
          'The registry lacks subscriptions of a running process, as after a restore of an older state: relays dispatch nothing until it has registered them again',
          'Wait for ten seconds. If it stays, restart the processes that the log names.',
        ),
      ]
    }
  },
}

interface Declaration extends Record<string, unknown> {
  readonly subscription: string
  readonly service: string
  readonly events: readonly string[]
  readonly where: string | null
}

/**
 * Declarations of earlier code that no process has any more while others have a newer one: the leader retires them after five minutes, and until
 * then events that only they cover wait.
 */
export const declarationsCheck: Check = {
  name: 'declarations of subscriptions',
  needs: 'bus',
  async run({ read }) {
    const rows = await read<Declaration>(
      `with live as materialized (
         select distinct x.id, d.subscription_id
         from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
         where i.seen_at > clock_timestamp() - interval '${liveSeconds} seconds'
       )
       select s.name as subscription, s.service, d.patterns as events, d."where"
       from bus.declarations d join bus.subscriptions s on s.id = d.subscription_id
       where d.retired_at is null and d.id not in (select id from live) and d.subscription_id in (select subscription_id from live)
       order by s.name, d.id limit 100`,
    )
    if (rows.length === 0) return []
    return [
      found(
        'declaration-abandoned',
        `No process has an earlier declaration of ${namesOf([...new Set(rows.map(({ subscription }) => subscription))])} any more: events that only it covers wait until it is retired, five minutes after the last process that had it`,
        'Nothing has to be done after a deployment. If it stays, see whether a process leads: bus.health() of each.',
        { declarations: rows },
      ),
    ]
  },
}
