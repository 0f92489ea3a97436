import { describe, invalidOption } from '../../foundation/options.ts'

/** A client of the AWS SDK 3: `new SQSClient({ … })`, or `new SQS({ … })`, which needs no command classes. */
export interface AwsClient {
  readonly send: (command: never, options?: never) => Promise<unknown>
}

/** The class of a command of the AWS SDK. */
type AwsCommand = new (input: never) => object

/** The classes of the commands with these names. */
export type AwsCommands<N extends string> = Readonly<Record<`${N}Command`, AwsCommand>>

/** Makes requests of AWS. */
export interface AwsCalls<N extends string> {
  /** Loads the command classes, if the client needs them and they were not passed. */
  readonly open: () => Promise<void>
  /**
   * Resolves to the answer. Rejects with the error of the SDK, with the reason of the signal, or after the time limit, whatever the client
   * does meanwhile.
   *
   * @param waitMs - how much longer than the time limit the answer may take
   */
  readonly call: (name: N, input: object, signal: AbortSignal, waitMs?: number) => Promise<unknown>
}

export interface AwsCallsParts<N extends string> {
  /** The commands that are called. */
  readonly names: readonly N[]
  readonly client: AwsClient
  readonly commands: AwsCommands<NoInfer<N>> | undefined
  /** Loads the package that has the command classes. */
  readonly load: () => Promise<AwsCommands<NoInfer<N>>>
  readonly timeoutMs: number
}

export function createAwsCalls<N extends string>(parts: AwsCallsParts<N>): AwsCalls<N> {
  const { names, client, commands, load, timeoutMs } = parts
  let loading: Promise<AwsCommands<N>> | undefined

  async function loaded(): Promise<AwsCommands<N>> {
    if (commands !== undefined) return commands
    loading ??= load()
    loading.catch(() => {
      loading = undefined
    })
    return loading
  }

  async function send(name: N, input: object, abortSignal: AbortSignal): Promise<unknown> {
    const method = methodOf(client, name)
    if (method !== undefined) return method.call(client, input, { abortSignal })
    const { [`${name}Command` as const]: Command } = await loaded()
    return client.send(new Command(input as never) as never, { abortSignal } as never)
  }

  return {
    async open() {
      if (names.some((name) => methodOf(client, name) === undefined)) await loaded()
    },
    async call(name, input, signal, waitMs = 0) {
      signal.throwIfAborted()
      const ended = new AbortController()
      const limitMs = timeoutMs + waitMs
      const timer = setTimeout(() => ended.abort(new Error(`no answer within ${limitMs} ms`)), limitMs)
      const give = (): void => ended.abort(signal.reason)
      signal.addEventListener('abort', give, { once: true })
      const aborted = Promise.withResolvers<never>()
      ended.signal.addEventListener('abort', () => aborted.reject(ended.signal.reason), { once: true })
      try {
        return await Promise.race([send(name, input, ended.signal), aborted.promise])
      } finally {
        clearTimeout(timer)
        signal.removeEventListener('abort', give)
      }
    },
  }
}

/** The aggregated client `SQS` has a method for each command: `sendMessageBatch`. The bare client `SQSClient` has none. */
function methodOf(
  client: AwsClient,
  name: string,
): ((this: AwsClient, input: object, options: object) => Promise<unknown>) | undefined {
  const method: unknown = (client as unknown as Record<string, unknown>)[
    `${name.charAt(0).toLowerCase()}${name.slice(1)}`
  ]
  return typeof method === 'function'
    ? (method as (this: AwsClient, input: object, options: object) => Promise<unknown>)
    : undefined
}

/** Checks the options that all transports to AWS have. @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function clientOption(client: unknown, example: string): AwsClient {
  if (typeof (client as AwsClient | null | undefined)?.send === 'function') return client as AwsClient
  throw invalidOption(
    `Expected \`client\` to be a client of the AWS SDK, such as ${example}, got ${describe(client)}`,
    'client',
  )
}

/** @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function commandsOption<N extends string>(
  given: AwsCommands<NoInfer<N>> | undefined,
  names: readonly N[],
): AwsCommands<N> | undefined {
  if (given === undefined) return undefined
  for (const name of names) {
    const command: unknown = (given as Record<string, unknown> | null)?.[`${name}Command`]
    if (typeof command !== 'function')
      throw invalidOption(
        `Expected \`commands\` to have the class \`${name}Command\`, got ${describe(command)}`,
        'commands',
      )
  }
  return given
}
