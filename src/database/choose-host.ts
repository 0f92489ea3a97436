import type pg from 'pg'
import { BusClient } from './bus-client.ts'
import type { Host } from './configuration/database-url.ts'

/** How long a host may take to say whether it takes writes. */
const hostLimitMs = 2000

/** Chooses between hosts. */
export interface HostChooser {
  choose: (config: pg.PoolConfig, hosts: readonly Host[]) => Promise<Host>
  /** Cuts the connections on which hosts are asked. */
  close: () => void
}

/**
 * Finds, of several hosts, the first in order that takes writes: on connections of their own, all at once, so that one that
 * does not answer costs no more than {@link hostLimitMs}. The one found last is asked alone before.
 *
 * @throws what the last of them says when there is none
 */
export function createHostChooser(): HostChooser {
  const asking = new Set<BusClient>()
  let last: Host | undefined

  async function choose(config: pg.PoolConfig, hosts: readonly Host[]): Promise<Host> {
    const known = hosts.find(({ host, port }) => host === last?.host && port === last?.port)
    if (known !== undefined && (await assertWritable(config, known, asking).then(yes, no))) return known
    const mine = new Set<BusClient>()
    const attempts = hosts.map(async (host) => assertWritable(config, host, asking, mine))
    for (const attempt of attempts) attempt.catch(() => {})
    let reason: unknown
    for (const [index, attempt] of attempts.entries()) {
      try {
        await attempt
        // Nobody waits for the others.
        for (const client of mine) client.unref()
        last = hosts[index]
        return hosts[index] as Host
      } catch (error) {
        reason = error
      }
    }
    throw reason
  }

  return {
    choose,
    close() {
      for (const client of asking) client.cut('The bus was stopped')
    },
  }
}

async function assertWritable(
  config: pg.PoolConfig,
  host: Host,
  ...lists: readonly Set<BusClient>[]
): Promise<void> {
  const client = new BusClient({
    ...config,
    ...host,
    connectionTimeoutMillis: hostLimitMs,
    query_timeout: hostLimitMs,
  })
  for (const list of lists) list.add(client)
  try {
    await client.connect()
    const { rows } = await client.query<{ transaction_read_only: string }>('show transaction_read_only')
    if (rows[0]?.transaction_read_only !== 'off')
      throw Object.assign(new Error('None of the hosts takes writes'), { code: '25006' })
  } finally {
    for (const list of lists) list.delete(client)
    client.unref()
    void client.end().catch(() => {})
  }
}

const yes = (): boolean => true
const no = (): boolean => false
