import type pg from 'pg'
import { BusClient } from './bus-client.ts'
import type { Host } from './configuration/database-url.ts'

/** Time limit for a host to report whether it accepts writes. */
const hostLimitMs = 2000

/** Chooses one of several hosts. */
export interface HostChooser {
  choose: (config: pg.PoolConfig, hosts: readonly Host[]) => Promise<Host>
  /** Closes the connections on which hosts are asked. */
  close: () => void
}

/**
 * Finds the first of several hosts, in order, that accepts writes. It asks all of them at once on separate connections,
 * so that an unresponsive host costs at most {@link hostLimitMs}. The previously chosen host is asked first, alone.
 *
 * @throws the error of the last host, if none accepts writes
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
        // Nobody waits for the other hosts.
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
      throw Object.assign(new Error('None of the hosts accepts writes'), { code: '25006' })
  } finally {
    for (const list of lists) list.delete(client)
    client.unref()
    void client.end().catch(() => {})
  }
}

const yes = (): boolean => true
const no = (): boolean => false
