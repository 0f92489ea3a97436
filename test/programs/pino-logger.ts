// A logger like pino: fields first, then a constant message. `ctx.log` carries the event, the subscription and the attempt.
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

/** What of pino's type matters here: its methods are overloaded, and there are more of them. */
interface LogFn {
  (obj: unknown, msg?: string, ...args: unknown[]): void
  (msg: string, ...args: unknown[]): void
}
interface PinoLike {
  readonly level: string
  readonly debug: LogFn
  readonly info: LogFn
  readonly warn: LogFn
  readonly error: LogFn
  readonly child: (bindings: object) => PinoLike
}

function pinoLike(write: (line: Record<string, unknown>) => void, bindings: object = {}): PinoLike {
  const at =
    (level: string): LogFn =>
    (obj: unknown, msg?: unknown) =>
      write({ level, ...bindings, ...(typeof obj === 'object' ? obj : {}), msg })
  return {
    level: 'debug',
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (more) => pinoLike(write, { ...bindings, ...more }),
  }
}

export async function run({ url, db }: Environment) {
  const lines: Record<string, unknown>[] = []
  const logger = pinoLike((line) => lines.push(line))
  const handled = Promise.withResolvers<void>()
  const bus = createBus({
    database: url,
    events,
    source: 'payment-service',
    logger: logger.child({ module: 'bus' }),
  })
  bus.subscribe({
    name: 'open-case',
    events: ['payment.paid'],
    handler: (_event, { log }) => {
      log.info({ queue: 'cases' }, 'opening a case')
      handled.resolve()
    },
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: 'secret', amountCents: 1 },
    }),
  )
  await handled.promise
  await bus.stop()
  return { line: lines.find(({ msg }) => msg === 'opening a case'), text: JSON.stringify(lines) }
}
