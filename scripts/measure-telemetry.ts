/**
 * Measures what telemetry costs: the share of CPU time that an SDK of OpenTelemetry and the bus's own code for it take, while events are
 * published and delivered.
 *
 *   node scripts/measure-telemetry.ts [--rounds 40] [--events 100]
 *
 * One process publishes and delivers, in each mode for some warm and some measured rounds; in rounds with a hundred events in a call there are
 * twenty times as many. The share comes from a profile of the same run, so that other work on the machine, which makes everything take longer,
 * does not change it. It has the functions of the SDK, its exporter into memory, the API and `src/telemetry/`. Beside it is the CPU time of all,
 * on Linux also with that of PostgreSQL: what the metadata cost, and the memory that spans take until they are exported, is only in these.
 */
import { Session, type Profiler } from 'node:inspector/promises'
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
import { parentOf, serverCpuMs } from './server-cpu.ts'

/** Exports into memory, which is free again at once, as that of an exporter that has sent its spans. */
class PassingExporter extends InMemorySpanExporter {
  override export(...args: Parameters<InMemorySpanExporter['export']>): void {
    super.export(...args)
    this.reset()
  }
}

/** An SDK is kept between the turns of its mode. */
interface Sdk {
  readonly meters: MeterProvider
  readonly tracers: TracerProvider | undefined
}

const sdks = {
  'no SDK': undefined,
  'metrics only': createSdk(undefined),
  'metrics and spans, nothing sampled': createSdk(new AlwaysOffSampler()),
  'metrics and spans, a tenth sampled': createSdk(new TraceIdRatioBasedSampler(0.1)),
  'metrics and spans, all sampled': createSdk(new AlwaysOnSampler()),
} as const

type Mode = keyof typeof sdks

const modes = Object.keys(sdks) as Mode[]

/** How events are published: each in a transaction of its own, or a hundred in one call. */
const workloads = { 'one by one': 1, 'a hundred in a call': 100 } as const

interface Measured {
  /** Microseconds of CPU for each event. */
  readonly own: number
  readonly withServer: number
  /** Of the time in which the process was not idle. */
  readonly sdkShare: number
  readonly busShare: number
}

const events = defineEvents({ 'order.placed': { schema: z.object({ n: z.number() }) } })
const silent = { debug() {}, info() {}, warn() {}, error() {} }

function createSdk(sampler: Sampler | undefined): Sdk {
  const reader = new PeriodicExportingMetricReader({
    exporter: new InMemoryMetricExporter(AggregationTemporality.DELTA),
    exportIntervalMillis: 10_000,
  })
  const tracers =
    sampler &&
    new TracerProvider({
      sampler: new ParentBasedSampler({ root: sampler }),
      spanProcessors: [new BatchSpanProcessor({ exporter: new PassingExporter() })],
    })
  return { meters: new MeterProvider({ readers: [reader] }), tracers }
}

function register(sdk: Sdk | undefined): void {
  for (const api of [trace, metrics, propagation, context]) api.disable()
  if (sdk === undefined) return
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(
    new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
  )
  if (sdk.tracers !== undefined) trace.setGlobalTracerProvider(sdk.tracers)
  metrics.setGlobalMeterProvider(sdk.meters)
}

/** Nanoseconds of what is done for each event without an SDK: it is looked for. */
function measureLook(): number {
  const [spans, recorder] = [createSpans(false), createOtelRecorder()]
  const count = 5_000_000
  const look = (): number => {
    const before = process.cpuUsage()
    for (let i = 0; i < count; i += 1) {
      if (spans.isOn || recorder.isOn) throw new Error('There is an SDK')
      recorder.attempt('order.placed', 'measured', 1, 1, undefined)
    }
    return (process.cpuUsage(before).user / count) * 1000
  }
  look()
  return look()
}

async function main(roundCount: number, eventCount: number): Promise<void> {
  console.log(
    `without an SDK: ${measureLook().toFixed(0)} ns for each event and handler call, to look for one`,
  )
  const server = await startOwnPostgres()
  const pool = new pg.Pool({ connectionString: server.url, max: 10 }).on('error', () => {})
  const postmaster = await findPostmaster(pool)
  const bus = createBus({ database: server.url, events, source: 'measure', logger: silent })
  await bus.migrate()
  let handledCount = 0
  bus.subscribe({
    ...{ name: 'measured', events: ['order.placed'], concurrency: 50 },
    handler: async () => {
      handledCount += 1
    },
  })
  await bus.start()

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

  async function takeRounds(batchSize: number, count: number): Promise<void> {
    handledCount = 0
    let n = 0
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        while (n < count) {
          const from = n
          n += batchSize
          await publishSome(batchSize, from)
        }
      }),
    )
    while (handledCount < count) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  async function measure(batchSize: number, count: number): Promise<Measured> {
    const serverBefore = await serverCpuMs(postmaster)
    const before = process.cpuUsage()
    const profile = await profiled(async () => takeRounds(batchSize, count))
    const { user, system } = process.cpuUsage(before)
    const own = user + system
    const withServer = own + ((await serverCpuMs(postmaster)) - serverBefore) * 1000
    return { own: own / count, withServer: withServer / count, ...sharesOf(profile) }
  }

  for (const [workload, batchSize] of Object.entries(workloads)) {
    console.log(`\nevents ${workload}`)
    const count = batchSize === 1 ? eventCount : 20 * eventCount
    for (const mode of modes) {
      register(sdks[mode])
      await takeRounds(batchSize, roundCount * count)
      report(mode, await measure(batchSize, roundCount * count))
    }
  }
  register(undefined)
  await bus.stop()
  await pool.end()
  await server.stop()
}

async function profiled(work: () => Promise<void>): Promise<Profiler.Profile> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: 500 })
  await session.post('Profiler.start')
  await work()
  const { profile } = await session.post('Profiler.stop')
  session.disconnect()
  return profile
}

function sharesOf({
  nodes,
  samples = [],
  timeDeltas = [],
}: Profiler.Profile): Pick<Measured, 'sdkShare' | 'busShare'> {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
  let [all, sdk, ours] = [0, 0, 0]
  for (const [i, id] of samples.entries()) {
    const { functionName = '', url = '' } = frames.get(id) ?? {}
    const time = timeDeltas[i] ?? 0
    if (functionName === '(idle)') continue
    all += time
    if (url.includes('/node_modules/@opentelemetry/')) sdk += time
    else if (/\/src\/telemetry\/|\/tell-settled\.ts|\/send-events\.ts/.test(url)) ours += time
  }
  return { sdkShare: sdk / all, busShare: ours / all }
}

function report(mode: Mode, { own, withServer, sdkShare, busShare }: Measured): void {
  const share = sdkShare + busShare
  console.log(
    `  ${mode.padEnd(35)} process ${own.toFixed(0).padStart(5)} µs an event, with PostgreSQL ${withServer.toFixed(0).padStart(5)} µs; ` +
      `SDK ${percent(sdkShare)} and bus ${percent(busShare)} of the process, ${percent((share * own) / withServer)} of both`,
  )
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`
}

/** @returns undefined where there is no /proc */
async function findPostmaster(pool: pg.Pool): Promise<number | undefined> {
  const { rows } = await pool.query<{ pid: number }>('select pg_backend_pid() as pid')
  return parentOf(rows[0]?.pid ?? 0)
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '40' },
    events: { type: 'string', default: '100' },
  },
})
await main(Number(values.rounds), Number(values.events))
process.exit(0)
