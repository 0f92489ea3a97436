import { describe, invalidOption } from '../../foundation/options.ts'

/** A client of Redis or Valkey: `redis` (node-redis) has `sendCommand`, `ioredis` and `iovalkey` have `call`. */
export type RedisClient =
  | { readonly sendCommand: (command: string[]) => Promise<unknown> }
  | { readonly call: (command: string, ...parameters: string[]) => Promise<unknown> }

/** Runs a command. */
export type Call = (command: string, ...parameters: string[]) => Promise<unknown>

/** The function that runs commands of a client. @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function callOf(client: unknown): Call {
  const { sendCommand, call } = Object(client) as { sendCommand?: unknown; call?: unknown }
  // ioredis has both, and its `sendCommand` takes an object.
  if (typeof call === 'function')
    return async (...command) => (call as (...command: string[]) => Promise<unknown>).apply(client, command)
  if (typeof sendCommand === 'function')
    return async (...command) =>
      (sendCommand as (command: string[]) => Promise<unknown>).call(client, command)
  throw invalidOption(`Expected \`client\` to be a client of Redis, got ${describe(client)}`, 'client')
}
