import { delivered, everyResult, type Transport } from '../sending/transport.ts'

/** A transport that accepts every event and sends it nowhere: for tests, and for deployments without a broker. */
export function noop(): Transport {
  return {
    name: 'noop',
    order: 'key',
    maxEvents: 1000,
    publish: async (events) => everyResult(events.length, delivered),
    async check() {},
    async close() {},
  }
}
