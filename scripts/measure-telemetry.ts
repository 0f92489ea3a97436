/**
 * Measures what telemetry costs: the CPU time of the process for each event that is published and delivered, without an SDK, and with one that
 * exports into memory.
 *
 *   node scripts/measure-telemetry.ts [--rounds 25] [--events 500]
 *
 * Each mode has a process of its own on the same server. The processes take turns, in another order each round, so that other work on the
 * machine meets all of them. Every mode is compared with no SDK in the same round; the table has the medians, and the quartiles of the ratio.
 * On Linux also with the CPU time of PostgreSQL, which works for the process whose turn it is.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { context, metrics, propagation, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  InMemorySpanExporter,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
  type Sampler,
} from '@opentelemetry/sdk-trace'
import pg from 'pg'
import { z } from 'zod'
import { createBus, defineEvents, fromPg } from '../src/index.ts'
import { createOtelRecorder } from '../src/telemetry/otel-recorder.ts'
import { createSpans } from '../src/telemetry/spans.ts'
import { startOwnPostgres } from '../src/testing/postgres.ts'

const modes = {
  'no SDK': undefined,
  'telemetry: false': { sampler: undefined, hasMetrics: false, telemetry: false },
  'SDK, metrics only': { sampler: undefined, hasMetrics: true, telemetry: { spans: false } },
  'SDK, nothing sampled': { sampler: new AlwaysOffSampler(), hasMetrics: true, telemetry: true },
  'SDK, a tenth sampled': { sampler: new TraceIdRatioBasedSampler(0.1), hasMetrics: true, telemetry: true },
  'SDK, all sampled': { sampler: new AlwaysOnSampler(), hasMetrics: true, telemetry: true },
} as const

type Mode = keyof typeof modes

/** How events are published: each in a transaction of its own, or a hundred in one call. */
const workloads = { 'one by one': 1, 'a hundred in a call': 100 } as const

type Workload = keyof typeof workloads

interface Turn {
  readonly workload: Workload
  readonly eventCount: number
}

const events = defineEvents({ 'order.placed': { schema: z.object({ n: z.number() }) } })
const silent = { debug() {}, info() {}, warn() {}, error() {} }

function registerSdk(sampler: Sampler | undefined, hasMetrics: boolean): InMemorySpanExporter {
  const exporter = new InMemorySpanExporter()
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(
    new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  )
  if (sampler !== undefined)
    trace.setGlobalTracerProvider(
      new TracerProvider({
        sampler: new ParentBasedSampler({ root: sampler }),
        spanProcessors: [new BatchSpanProcessor({ exporter })],
      }),
    )
  if (hasMetrics)
    metrics.setGlobalMeterProvider(
      new MeterProvider({
        readers: [
          new PeriodicExportingMetricReader({
            exporter: new InMemoryMetricExporter(AggregationTemporality.DELTA),
            exportIntervalMillis: 10_000,
          }),
        ],
      }),
    )
  return exporter
}

/** A process that measures one mode: it takes turns when it is told to. */
async function serve(mode: Mode, url: string): Promise<void> {
  const chosen = modes[mode]
  const exporter = chosen && registerSdk(chosen.sampler, chosen.hasMetrics)
  const bus = createBus({
    database: url,
    events,
    source: 'measure',
    logger: silent,
    telemetry: chosen?.telemetry ?? true,
  })
  await bus.migrate()
  let handledCount = 0
  bus.subscribe({
    ...{ name: 'measured', events: ['order.placed'], concurrency: 50 },
    handler: async () => {
      handledCount += 1
    },
  })
  await bus.start()
  const pool = new pg.Pool({ connectionString: url, max: 10 })

  async function publishSome(batchSize: number, from: number): Promise<void> {
    const client = await pool.connect()
    try {
      await client.query('begin')
      const batch = Array.from({ length: batchSize }, (_, i) => ({
        ...({ type: 'order.placed', tenantId: 'acme' } as const),
        payload: { n: from + i },
      }))
      if (batchSize === 1) for (const event of batch) await bus.publish(fromPg(client), event)
      else await bus.publishMany(fromPg(client), batch)
      await client.query('commit')
    } finally {
      client.release()
    }
  }

  async function takeTurn({ workload, eventCount }: Turn): Promise<number> {
    const batchSize = workloads[workload]
    handledCount = 0
    exporter?.reset()
    globalThis.gc?.()
    const before = process.cpuUsage()
    let n = 0
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        while (n < eventCount) {
          const from = n
          n += batchSize
          await publishSome(batchSize, from)
        }
      }),
    )
    while (handledCount < eventCount) await new Promise((resolve) => setTimeout(resolve, 5))
    const { user, system } = process.cpuUsage(before)
    return user + system
  }

  process.on('message', (turn: Turn | 'stop') => {
    if (turn === 'stop') void Promise.all([bus.stop(), pool.end()]).then(() => process.exit(0))
    else void takeTurn(turn).then((cost) => process.send?.(cost))
  })
  process.send?.('ready')
}

/** Nanoseconds of what is done for each event without an SDK: it is looked for. */
function measureLook(): number {
  const [spans, recorder] = [createSpans(false), createOtelRecorder()]
  const count = 5_000_000
  const look = (): number => {
    const startedAt = performance.now()
    for (let i = 0; i < count; i += 1) {
      if (spans.isOn || recorder.isOn) throw new Error('There is an SDK')
      recorder.attempt('order.placed', 'measured', 1, 1, undefined)
    }
    return ((performance.now() - startedAt) / count) * 1e6
  }
  look()
  return look()
}

async function main(roundCount: number, eventCount: number): Promise<void> {
  console.log(
    `without an SDK: ${measureLook().toFixed(0)} ns to look for one, for each event and handler call`,
  )
  const server = await startOwnPostgres()
  const admin = new pg.Client(server.url)
  await admin.connect()
  const { rows } = await admin.query<{ pid: number }>('select pg_backend_pid() as pid')
  const postmaster = parentOf(rows[0]?.pid ?? 0)
  const children = new Map<Mode, ChildProcess>()
  for (const [i, mode] of (Object.keys(modes) as Mode[]).entries()) {
    await admin.query(`create database measure_${i}`)
    const url = Object.assign(new URL(server.url), { pathname: `/measure_${i}` }).toString()
    const child = fork(fileURLToPath(import.meta.url), ['--serve', mode, '--url', url], {
      execArgv: ['--expose-gc'],
    })
    await once(child, 'message')
    children.set(mode, child)
  }
  for (const workload of Object.keys(workloads) as Workload[]) {
    const costs = new Map<Mode, Cost[]>()
    // The first two rounds are for the compiler.
    for (let round = -2; round < roundCount; round += 1) {
      for (const [mode, child] of [...children].toSorted(() => Math.random() - 0.5)) {
        const before = serverCpu(postmaster)
        child.send({ workload, eventCount } satisfies Turn)
        const [own] = (await once(child, 'message')) as [number]
        const cost = {
          own: own / eventCount,
          withServer: (own + serverCpu(postmaster) - before) / eventCount,
        }
        if (round >= 0) costs.set(mode, [...(costs.get(mode) ?? []), cost])
      }
    }
    report(workload, costs)
  }
  for (const child of children.values()) {
    child.send('stop')
    await once(child, 'exit')
  }
  await admin.end()
  await server.stop()
}

/** Microseconds of CPU for each event. */
interface Cost {
  readonly own: number
  readonly withServer: number
}

function report(workload: Workload, costs: ReadonlyMap<Mode, readonly Cost[]>): void {
  console.log(`\nevents ${workload}: CPU time for each event, published and delivered`)
  for (const mode of Object.keys(modes) as Mode[]) {
    const shown = (['own', 'withServer'] as const).map((what) => {
      const all = (costs.get(mode) ?? []).map((cost) => cost[what])
      const ratios = all.map((cost, round) => cost / (costs.get('no SDK')?.[round]?.[what] ?? cost))
      const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => percent(quantile(ratios, share)))
      return `${quantile(all, 0.5).toFixed(1).padStart(7)} µs ${middle} (${low} to ${high})`
    })
    console.log(`  ${mode.padEnd(22)} process ${shown[0]}; with PostgreSQL ${shown[1]}`)
  }
}

/** Of a process and its children, those that have ended included, in microseconds. 0 where there is no /proc. */
function serverCpu(postmaster: number): number {
  try {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    let ticks = 0
    for (const pid of pids) {
      const fields = statOf(Number(pid))
      if (Number(pid) !== postmaster && Number(fields?.[1]) !== postmaster) continue
      // utime, stime, cutime, cstime
      for (const value of fields?.slice(11, 15) ?? []) ticks += Number(value)
    }
    return ticks * 10_000
  } catch {
    return 0
  }
}

function parentOf(pid: number): number {
  return Number(statOf(pid)?.[1] ?? 0)
}

/** The fields of /proc/<pid>/stat from the state on. */
function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    // It has ended.
    return undefined
  }
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function percent(ratio: number): string {
  return `${ratio >= 1 ? '+' : ''}${((ratio - 1) * 100).toFixed(1)} %`
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '25' },
    events: { type: 'string', default: '500' },
    serve: { type: 'string' },
    url: { type: 'string', default: '' },
  },
})
if (values.serve === undefined) await main(Number(values.rounds), Number(values.events))
else await serve(values.serve as Mode, values.url)
