import type {
  ReceivedMessage,
  ReceiveMessages,
  Source,
  SourceContext,
} from '../../src/transports/receiving/source.ts'

/** A message with a body of JSON, or of text. */
export function messageWith(
  id: string | undefined,
  body: unknown,
  more: Partial<ReceivedMessage> = {},
): ReceivedMessage {
  return {
    id,
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    headers: {},
    contentType: 'application/json',
    key: undefined,
    from: 'memory',
    protocol: undefined,
    ...more,
  }
}

/** A source in memory: what is not acknowledged is delivered again. */
export interface MemorySource extends Source {
  /** Adds messages, and delivers them. */
  readonly add: (...messages: readonly ReceivedMessage[]) => void
  /** Passes messages on at once, as a source does. */
  readonly receive: ReceiveMessages
  /** Messages that were not acknowledged yet. */
  readonly waiting: readonly ReceivedMessage[]
  readonly acknowledgedCount: number
  readonly calls: string[]
}

/** @param options.batchSize - messages of a call */
export function memorySource(options: { readonly batchSize?: number } = {}): MemorySource {
  const waiting: ReceivedMessage[] = []
  const calls: string[] = []
  let context: SourceContext | undefined
  let receive: ReceiveMessages | undefined
  let running: Promise<void> | undefined
  let isStopped = false
  let acknowledgedCount = 0

  async function run(): Promise<void> {
    while (!isStopped && receive !== undefined && context !== undefined && waiting.length > 0) {
      const batch = waiting.slice(0, options.batchSize ?? 100)
      try {
        await receive(batch, { signal: context.signal })
        waiting.splice(0, batch.length)
        acknowledgedCount += batch.length
      } catch (error) {
        context.reportFailure(error)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  }

  function deliver(): void {
    running ??= run().finally(() => {
      running = undefined
      if (!isStopped && receive !== undefined && waiting.length > 0) deliver()
    })
  }

  return {
    name: 'memory',
    waiting,
    calls,
    get acknowledgedCount() {
      return acknowledgedCount
    },
    async open() {
      calls.push('open')
    },
    async start(given, givenContext) {
      calls.push('start')
      ;[receive, context] = [given, givenContext]
      deliver()
    },
    async stop() {
      calls.push('stop')
      isStopped = true
      await running
    },
    async check() {},
    add(...messages) {
      waiting.push(...messages)
      deliver()
    },
    async receive(messages, call) {
      if (receive === undefined) throw new Error('The source was not started')
      return receive(messages, call)
    },
  }
}
