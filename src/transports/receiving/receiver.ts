import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { StateError } from '../../foundation/errors.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { waitUntil } from '../../foundation/with-timeout.ts'
import { messageIdText } from './message-id.ts'
import { prepareMessage, type PreparedMessage, type PrepareParts } from './prepare-message.ts'
import { retryQuarantined } from './retry-quarantined.ts'
import type { ReceivedMessage, ReceiveMessages, Source } from './source.ts'
import { storeMessages, type StoreParts } from './store-messages.ts'

/** What a receiver works with. */
export interface ReceiverParts extends StoreParts, PrepareParts {
  readonly source: Source
  readonly logger: BusLogger
  /** Refuses, or waits, while more events wait than the option `admission` allows. */
  readonly admit: () => Promise<void>
}

/** A receiver of this process. */
export interface Receiver {
  readonly name: string
  /** @throws a `ConfigurationError` */
  readonly open: () => Promise<void>
  /** @throws a `ConfigurationError` */
  readonly start: () => Promise<void>
  /** There may be messages to try again. */
  readonly wake: () => void
  /** Fetches no more, and waits for what runs until a moment of `performance.now()`. What still runs then is given up. Never rejects. */
  readonly stop: (deadline: number) => Promise<void>
}

/** Calls of `map` at the same time. */
const mapCount = 50

/** The same failure is logged once in this time. */
const quietMs = 10_000

/** How often a process looks whether there are messages to try again, although nobody has told it so. */
const lookMs = 30_000

/** How long a source may take to give its connections back after the grace. */
const closeMs = 1000

export function createReceiver(parts: ReceiverParts): Receiver {
  const { source, logger, admit, receiver: name } = parts
  const ending = new AbortController()
  const report = createFailureLog(logger, name)
  let state: 'created' | 'running' | 'stopped' = 'created'
  let stopping: Promise<void> | undefined
  const retries = createRetries(parts, report)

  const receive: ReceiveMessages = async (messages, { signal }) => {
    if (state !== 'running') throw new StateError(`The receiver \`${name}\` has been stopped`)
    signal.throwIfAborted()
    try {
      for (const message of messages) assertMessage(message)
      await admit()
      const prepared = await prepareAll(parts, messages)
      signal.throwIfAborted()
      const { quarantined } = await storeMessages(parts, prepared)
      for (const { message, poison } of quarantined)
        logger.warn(
          {
            receiver: name,
            messageId: message.id?.slice(0, 255),
            from: message.from.slice(0, 255),
            code: poison.code,
            reason: poison.reason,
          },
          'a message that cannot become an event was put into the quarantine',
        )
    } catch (error) {
      if (!signal.aborted)
        report(error, 'messages could not be stored: they stay with the system that sent them')
      throw error
    }
  }

  async function stop(deadline: number): Promise<void> {
    const wasRunning = state === 'running'
    // Calls that have begun may finish: the state is looked at when they begin.
    const stopped = wasRunning
      ? source.stop().catch((error: unknown) => report(error, 'a source could not be stopped'))
      : Promise.resolve()
    const retried = retries.stop()
    await waitUntil(deadline, Promise.all([stopped, retried]))
    state = 'stopped'
    ending.abort(new StateError(`The receiver \`${name}\` has been stopped`))
    await waitUntil(performance.now() + closeMs, stopped)
  }

  return {
    name,
    async open() {
      await source.open?.()
    },
    async start() {
      if (state !== 'created') return
      state = 'running'
      await source.start(receive, {
        signal: ending.signal,
        reportFailure: (error) => report(error, 'a source has failed, and goes on by itself'),
      })
      retries.wake()
    },
    wake() {
      if (state === 'running') retries.wake()
    },
    async stop(deadline) {
      stopping ??= stop(deadline)
      await stopping
    },
  }
}

/** A source of one's own may do anything: what is wrong with it is said, and not taken for a message. */
function assertMessage(message: ReceivedMessage): void {
  if (!(message.body instanceof Uint8Array) || typeof message.from !== 'string')
    throw new TypeError('Expected messages like { id, body, headers, from }, with a body of bytes')
}

async function prepareAll(
  parts: PrepareParts,
  messages: readonly ReceivedMessage[],
): Promise<PreparedMessage[]> {
  const prepared: PreparedMessage[] = []
  for (let n = 0; n < messages.length; n += mapCount) {
    const some = messages.slice(n, n + mapCount)
    const results = await Promise.allSettled(
      some.map(async (message) => prepareMessage(parts, message, messageIdText(parts.receiver, message))),
    )
    for (const result of results) {
      if (result.status === 'rejected') throw result.reason
      prepared.push(result.value)
    }
  }
  return prepared
}

interface Retries {
  readonly wake: () => void
  readonly stop: () => Promise<void>
}

/** Tries messages of the quarantine again that a person wants to be tried. */
function createRetries(
  parts: StoreParts & PrepareParts,
  report: (error: unknown, what: string) => void,
): Retries {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isWoken = false
  let isStopped = false
  let failures = 0

  function schedule(delayMs: number): void {
    clearTimeout(timer)
    if (isStopped) return
    timer = setTimeout(() => {
      running ??= pass().finally(() => {
        running = undefined
        if (isWoken) schedule(0)
      })
    }, delayMs)
    timer.unref()
  }

  async function pass(): Promise<void> {
    isWoken = false
    try {
      while (!isStopped && (await retryQuarantined(parts)) > 0);
      failures = 0
      schedule(lookMs)
    } catch (error) {
      if (!isStopped) report(error, 'messages of the quarantine could not be tried again')
      schedule(failureDelayMs(failures))
      failures += 1
    }
  }

  return {
    wake() {
      isWoken = running !== undefined
      if (running === undefined) schedule(0)
    },
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await running
    },
  }
}

/** Says the same at most once in some seconds: a source repeats what fails. */
function createFailureLog(logger: BusLogger, receiver: string): (error: unknown, what: string) => void {
  const saidAt = new Map<string, number>()
  return (error, what) => {
    const reason = reasonOf(error)
    const now = performance.now()
    for (const [said, at] of saidAt) if (now - at > quietMs) saidAt.delete(said)
    if (saidAt.has(reason)) return
    if (saidAt.size < 100) saidAt.set(reason, now)
    logger.warn({ receiver, reason, what }, 'a receiver has failed, and goes on by itself')
  }
}
