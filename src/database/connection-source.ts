import type pg from 'pg'
import { createHostChooser } from './choose-host.ts'
import { toConnectError } from './database-errors.ts'
import { handleKind, poolDefaults, toTarget, type Target } from './configuration/pool-config.ts'
import { withTlsFiles } from './configuration/tls-parameters.ts'
import { withTimeout } from '../foundation/with-timeout.ts'

type Answer = string | pg.PoolConfig

/**
 * Where the bus's own connections go: a `postgres://` URL, a node-postgres pool configuration, or a function that
 * returns one of these and is called for each new connection.
 */
export type DatabaseOption = Answer | (() => Answer | Promise<Answer>)

/** Determines the address of each connection. */
export interface ConnectionSource {
  /** The configuration known so far: a fixed one, the newest answer, or the defaults before the first answer. */
  readonly known: pg.PoolConfig
  /** Asks for the address of the next connection. Undefined if it cannot change. */
  readonly ask: (() => Promise<pg.PoolConfig>) | undefined
  /** Makes pending and later questions fail. */
  close: () => void
}

/** Time limit for the option's function. */
const answerLimitMs = 10_000

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function createConnectionSource(option: DatabaseOption): ConnectionSource {
  const waiting = new Set<(reason: Error) => void>()
  const hostChooser = createHostChooser()
  let isClosed = false
  const target =
    typeof option === 'function' && handleKind(option) === undefined ? undefined : toTarget(option)
  let known = target === undefined ? poolDefaults : settledPart(target)

  /** Files are read and one of several hosts is chosen each time, because both change while the bus runs. */
  async function settle({ config, hosts, files }: Target): Promise<pg.PoolConfig> {
    try {
      const complete = await withTlsFiles(config, files)
      const host = hosts.length > 1 ? await hostChooser.choose(complete, hosts) : hosts[0]
      known = { ...complete, ...host }
    } catch (error) {
      throw toConnectError(error)
    }
    return known
  }

  /** A function that throws or does not answer counts as an unreachable database: it is called again later. */
  async function answerInTime(ask: () => Answer | Promise<Answer>): Promise<Answer> {
    const { promise: closed, reject } = Promise.withResolvers<never>()
    waiting.add(reject)
    try {
      return await withTimeout(Promise.race([Promise.resolve().then(ask), closed]), answerLimitMs, () => {
        const error = new Error(`the function \`database\` did not answer within ${answerLimitMs} ms`)
        throw Object.assign(error, { code: 'ETIMEDOUT' })
      })
    } finally {
      waiting.delete(reject)
    }
  }

  const isFixed = target !== undefined && target.hosts.length === 1 && Object.keys(target.files).length === 0
  return {
    get known() {
      return known
    },
    ask: isFixed
      ? undefined
      : async () => {
          if (isClosed) throw toConnectError(stopped())
          if (typeof option !== 'function') return settle(target ?? toTarget(option))
          const answer = await answerInTime(option).catch((error: unknown) => {
            throw toConnectError(error)
          })
          return settle(toTarget(answer))
        },
    close() {
      isClosed = true
      for (const reject of waiting) reject(stopped())
      hostChooser.close()
    },
  }
}

function stopped(): Error {
  return new Error('the bus was stopped')
}

/** The part of a target that is known without reading files or asking hosts. */
function settledPart({ config, hosts }: Target): pg.PoolConfig {
  return { ...config, ...hosts[0] }
}
