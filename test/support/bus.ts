import { onTestFinished } from 'vitest'
import { createBus, type Bus, type BusLogger, type BusOptions } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

export { paymentEvents } from './catalogue.ts'

type DatabaseOption = BusOptions<typeof paymentEvents>['database']

export type PaymentBus = Bus<typeof paymentEvents>

/** A line the bus logged. */
export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
}

/** A logger that keeps its lines. */
export function recordingLogger(): BusLogger & { readonly lines: LogLine[] } {
  const lines: LogLine[] = []
  const record =
    (level: LogLine['level']) => (fields: Readonly<Record<string, unknown>>, message: string) => {
      lines.push({ level, fields, message })
    }
  return { lines, debug: record('debug'), info: record('info'), warn: record('warn'), error: record('error') }
}

/** A bus that is stopped when the test is over, logging nowhere unless told. */
export function testBus(
  database: DatabaseOption,
  options: Partial<
    Pick<
      BusOptions<typeof paymentEvents>,
      | 'metrics'
      | 'source'
      | 'logger'
      | 'maxPayloadBytes'
      | 'bossSchema'
      | 'retention'
      | 'health'
      | 'canary'
      | 'admission'
      | 'telemetry'
    >
  > = {},
): PaymentBus {
  const bus = createBus({
    database,
    events: paymentEvents,
    source: 'payment-service',
    logger: recordingLogger(),
    ...options,
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}
