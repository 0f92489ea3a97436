/**
 * The payments service of the README, as a process.
 *
 *   npm start                          finds PostgreSQL by itself; with DATABASE_URL uses that
 *   npm start -- --drive               simulates payments
 *
 * Read from the environment:
 * - `DATABASE_URL`: a PostgreSQL to use. If omitted, one is started here with its data in `.data/postgres`.
 * - `PORT`: the port of the service on 127.0.0.1. Default 3000; 0 for any free one.
 * - `DEMO_CASE_DELAY_MS`: how long the handler that opens cases waits first, up to 50,000: time to `kill -9` the
 *   service between the payment and its case. The event is then delivered to the next process, after the dead one has
 *   missed its heartbeat for 30 seconds.
 */
import { createServer } from 'node:net'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { projectFolder, startPostgres } from '../testing/postgres.ts'
import { buildApp } from './app.ts'
import { drive, type OpenedCases } from './drive.ts'

const host = '127.0.0.1'

/** Serves until the signal, then stops everything. */
async function serve(signal: AbortSignal): Promise<void> {
  const { values } = parseArgs({ options: { drive: { type: 'boolean', default: false } } })
  const port = integerFromEnvironment('PORT', 3000, 65_535)
  const caseDelayMs = integerFromEnvironment('DEMO_CASE_DELAY_MS', 0, 50_000)
  // Before the database is started: a demo that is already running keeps its own.
  await assertPortIsFree(port)
  const server = await startPostgres({ dataFolder: join(projectFolder, '.data', 'postgres') })
  try {
    console.log(`PostgreSQL: ${server.description}`)
    const openedCases: OpenedCases = new Map()
    const app = await buildApp({
      databaseUrl: server.url,
      logger: { level: 'warn' },
      caseDelayMs,
      onCaseOpened: values.drive
        ? (paymentId) => void openedCases.set(paymentId, performance.now())
        : undefined,
    })
    try {
      const url = await app.listen({ host, port })
      console.log(`Payments service: ${url}\n`)
      if (values.drive) await drive(url, openedCases, signal)
      else await printHints(url, signal)
    } finally {
      await app.close()
    }
  } finally {
    await server.stop()
  }
}

async function printHints(url: string, signal: AbortSignal): Promise<void> {
  console.log(`Create a payment, verify it, look at the case that the event has opened:

  id=$(curl -s ${url}/payments -H 'content-type: application/json' -d '{"tenantId":"acme","amountCents":1250,"currency":"EUR"}' | cut -d'"' -f4); echo "$id"
  curl -sw '\\n' ${url}/payments/$id/verify -H 'content-type: application/json' -d '{"tenantId":"acme","verifiedBy":"ada","method":"bank-transfer"}'
  sleep 0.1; curl -sw '\\n' "${url}/cases?paymentId=$id"

Ctrl-C stops. 'npm start -- --drive' plays payments by itself.`)
  if (signal.aborted) return
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
}

function integerFromEnvironment(name: string, fallback: number, max: number): number {
  const text = process.env[name] ?? ''
  if (text === '') return fallback
  const value = Number(text)
  if (Number.isInteger(value) && value >= 0 && value <= max) return value
  throw new Error(`Expected ${name} to be an integer from 0 to ${max}, got ${JSON.stringify(text)}`)
}

async function assertPortIsFree(port: number): Promise<void> {
  const probe = createServer()
  await new Promise<void>((resolve, reject) => {
    probe.once('error', reject)
    probe.listen(port, host, () => probe.close(() => resolve()))
  })
}

/** A one-line description of a failure that the user can fix. */
function describeFailure(error: unknown): string {
  const { code, port, message } = error as { code?: string; port?: number; message?: string }
  if (code === 'EADDRINUSE') return `Port ${port} is in use. Choose another: PORT=3001 npm start`
  return message === undefined || message === '' ? String(error) : message
}

/** npm forwards a Ctrl-C that the terminal has already delivered: a second signal this soon is the same one. */
const sameCtrlCMs = 500

const stopping = new AbortController()
let stoppingSince = 0
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (!stopping.signal.aborted) {
      stoppingSince = performance.now()
      console.log('\nStopping. Ctrl-C again leaves at once.')
      stopping.abort()
    } else if (name === 'SIGINT' && performance.now() - stoppingSince > sameCtrlCMs) {
      // The next process delivers the events in progress again.
      process.exit(130)
    }
  })
}

try {
  await serve(stopping.signal)
  console.log('Stopped.')
} catch (error) {
  console.error(describeFailure(error))
  process.exitCode = 1
}
