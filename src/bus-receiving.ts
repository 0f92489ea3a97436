import type { BusState } from './bus-health.ts'
import type { Database } from './database/database.ts'
import { ConfigurationError, StateError } from './foundation/errors.ts'
import { reasonOf } from './foundation/error-reason.ts'
import { limits } from './foundation/limits.ts'
import type { BusLogger } from './foundation/logger.ts'
import { assertObject, integerOption, refuseUnknownKeys } from './foundation/options.ts'
import type { PublishSettings } from './outbox/publish/check-events.ts'
import type { RunOption } from './run-option.ts'
import { runOutside } from './telemetry/guarded-span.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import { createQuarantine } from './transports/receiving/create-quarantine.ts'
import type { Quarantine } from './transports/receiving/quarantine.ts'
import { createReceiver, type Receiver } from './transports/receiving/receiver.ts'
import { resolveReceiver } from './transports/receive.ts'

/** A receiver of this process. */
export interface ReceiverHandle {
  readonly name: string
  /** Resolves when this process fetches messages. Rejects with the error of the start. */
  readonly ready: () => Promise<void>
  /**
   * Fetches no more in this process, and waits up to `graceMs` (0 to 3,600,000, default 30,000) for messages that are being stored.
   * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
   */
  readonly stop: (options?: { readonly graceMs?: number | undefined }) => Promise<void>
}

export interface BusReceivingParts {
  readonly database: Database
  readonly settings: PublishSettings
  readonly telemetry: Telemetry
  readonly logger: BusLogger
  readonly admit: () => Promise<void>
  readonly state: () => BusState
  /** The start that is under way, or over. */
  readonly starting: () => Promise<void> | undefined
  /** Names of subscriptions: `run` lists both. */
  readonly subscriptionNames: () => readonly string[]
}

/** The receivers of a bus, and the quarantine of the database. */
export interface BusReceiving {
  readonly receive: (options: object) => ReceiverHandle
  readonly names: () => readonly string[]
  /** Opens the sources that this process runs. @throws a `ConfigurationError` */
  readonly open: (run: RunOption) => Promise<void>
  /** Fetches from now on. @throws a `ConfigurationError` */
  readonly start: () => Promise<void>
  /** There may be messages of the quarantine to try again. */
  readonly wake: () => void
  /** Never rejects. */
  readonly stop: (deadline: number) => Promise<void>
  readonly quarantine: Quarantine
}

export function createBusReceiving(parts: BusReceivingParts): BusReceiving {
  const { database, settings, telemetry, logger, admit, state } = parts
  const receivers = new Map<string, Receiver>()
  let chosen: readonly Receiver[] = []

  function wake(): void {
    for (const receiver of receivers.values()) receiver.wake()
  }

  /** For a receiver that comes after the start. */
  async function add(receiver: Receiver): Promise<void> {
    await parts.starting()
    if (state() !== 'started')
      throw new StateError(`Expected the bus to run when \`${receiver.name}\` is added: it was stopped`)
    await receiver.open()
    await receiver.start()
  }

  function addNow(receiver: Receiver): Promise<void> {
    // It goes on when the caller's trace is long over.
    const adding = runOutside(async () => add(receiver))
    adding.catch((error: unknown) => {
      receivers.delete(receiver.name)
      logger.error(
        { receiver: receiver.name, reason: reasonOf(error) },
        'a receiver could not be added to the running bus',
      )
    })
    return adding
  }

  return {
    quarantine: createQuarantine(database, wake),
    names: () => [...receivers.keys()],
    wake,
    receive(given) {
      if (state() === 'stopping' || state() === 'stopped')
        throw new StateError('Expected receive() before stop(): a stopped bus receives nothing')
      const { name, ...resolved } = resolveReceiver(given)
      if (receivers.has(name) || parts.subscriptionNames().includes(name))
        throw new ConfigurationError(
          'BUS_DUPLICATE_RECEIVER',
          `The bus has a receiver or a subscription \`${name}\` already`,
        )
      const receiver = createReceiver({
        ...{ database, settings, telemetry, logger, admit, receiver: name },
        ...resolved,
      })
      receivers.set(name, receiver)
      const adding = state() === 'created' ? undefined : addNow(receiver)
      return {
        name,
        async ready() {
          if (adding !== undefined) return adding
          if (parts.starting() === undefined)
            throw new StateError(`Expected start() before ready() of the receiver \`${name}\``)
          await parts.starting()
        },
        async stop(options = {}) {
          assertObject('options like { graceMs }', options)
          refuseUnknownKeys(options, ['graceMs'], 'stop')
          const graceMs = integerOption('graceMs', options.graceMs, limits.graceMs)
          await adding?.catch(() => {})
          await receiver.stop(performance.now() + graceMs)
          receivers.delete(name)
        },
      }
    },
    async open(run) {
      chosen = [...receivers.values()].filter(
        ({ name }) => run === 'everything' || (run !== 'nothing' && run.includes(name)),
      )
      await Promise.all(chosen.map(async (receiver) => receiver.open()))
    },
    async start() {
      await Promise.all(chosen.map(async (receiver) => receiver.start()))
    },
    async stop(deadline) {
      await Promise.all([...receivers.values()].map(async (receiver) => receiver.stop(deadline)))
    },
  }
}
