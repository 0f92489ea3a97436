import {
  assertObject,
  booleanOption,
  describe,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { delivered, everyResult, type Transport } from '../sending/transport.ts'

/** Options of {@link consoleTransport}. */
export interface ConsoleOptions {
  /** Whether payloads are printed. They may hold personal data. @defaultValue `false` */
  readonly payload?: boolean | undefined
  /** Takes a line without its end. @defaultValue writes it to standard output */
  readonly write?: ((line: string) => void) | undefined
}

/** A transport that prints a line of JSON for each event: for development. */
export function consoleTransport(options: ConsoleOptions = {}): Transport {
  assertObject('options like { payload }', options)
  refuseUnknownKeys(options, ['payload', 'write'], 'consoleTransport')
  const hasPayload = booleanOption('payload', options.payload, false)
  const { write = (line) => void process.stdout.write(`${line}\n`) } = options
  if (typeof write !== 'function')
    throw invalidOption(`Expected \`write\` to be a function, got ${describe(write)}`, 'write')
  return {
    name: 'console',
    order: 'key',
    maxEvents: 1000,
    async publish(events) {
      for (const { id, type, tenantId, orderingKey, createdAt, payload } of events) {
        const line = { id, type, tenantId, orderingKey, createdAt }
        write(JSON.stringify(hasPayload ? { ...line, payload } : line))
      }
      return everyResult(events.length, delivered)
    },
    async check() {},
    async close() {},
  }
}
