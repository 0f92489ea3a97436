import { isError, isThenable } from './cross-realm.ts'
import { reasonOf } from './error-reason.ts'
import { stackOf } from './error-stack.ts'
import { escapeUnprintable } from './text.ts'

/** Fields of a log line. Never a payload. */
export type LogFields = Readonly<Record<string, unknown>>

/** The four methods that the bus logs through. pino and `fastify.log` implement them. */
export interface BusLogger {
  debug: (fields: LogFields, message: string) => void
  info: (fields: LogFields, message: string) => void
  warn: (fields: LogFields, message: string) => void
  error: (fields: LogFields, message: string) => void
}

const maxStackLength = 4000

/** The default logger: warnings and errors as JSON lines on standard error, nothing else. Never throws. */
export const stderrLogger: BusLogger = {
  debug: () => {},
  info: () => {},
  warn: (fields, message) => writeLine('warn', fields, message),
  error: (fields, message) => writeLine('error', fields, message),
}

/** Logs nothing. */
export const silentLogger: BusLogger = { debug() {}, info() {}, warn() {}, error() {} }

function writeLine(level: string, fields: LogFields, message: string): void {
  const line = { level, time: new Date().toISOString(), name: 'bossbus', message }
  process.stderr.write(`${escapeUnprintable(toJson(line, fields) ?? JSON.stringify(line))}\n`)
}

/** The text of a line; undefined if a field cannot be serialised, because logging must never fail. */
function toJson(line: LogFields, fields: LogFields): string | undefined {
  try {
    return JSON.stringify({ ...line, ...fields, ...line }, (_key, value: unknown) => {
      if (typeof value === 'bigint') return String(value)
      return isError(value) ? describeError(value) : value
    })
  } catch {
    return undefined
  }
}

/** Also for errors that handlers log: their stacks begin with messages that may list parameters. */
function describeError(error: Error): LogFields {
  return { name: error.name, message: reasonOf(error), stack: stackOf(error, maxStackLength) }
}

/** A logger that never throws, even if the underlying one does, because logging must never fail. */
export function nonThrowing(logger: BusLogger): BusLogger {
  const guard =
    (level: keyof BusLogger) =>
    (fields: LogFields, message: string): void => {
      try {
        const returned = logger[level](fields, message) as unknown
        // An asynchronous logger may reject later.
        if (isThenable(returned)) returned.then(undefined, () => {})
      } catch {
        // There is nowhere left to report this.
      }
    }
  return { debug: guard('debug'), info: guard('info'), warn: guard('warn'), error: guard('error') }
}

/** A logger that adds fields to every line. */
export function withFields(logger: BusLogger, fields: LogFields): BusLogger {
  return {
    debug: (more, message) => logger.debug({ ...fields, ...more }, message),
    info: (more, message) => logger.info({ ...fields, ...more }, message),
    warn: (more, message) => logger.warn({ ...fields, ...more }, message),
    error: (more, message) => logger.error({ ...fields, ...more }, message),
  }
}
