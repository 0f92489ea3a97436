import pg from 'pg'
import { createBus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { ratioWithin, type CaseResult, type Figures } from '../results.ts'
import type { BenchDatabase } from '../server.ts'
import { median } from '../statistics.ts'
import type { Bench, Case, Workload } from '../workload.ts'

const unscoped = 'unscoped, the same WHERE'
const scoped = 'as bus_tenant, the same WHERE'
const forgotten = 'as bus_tenant, no WHERE'

interface Sizes {
  readonly eventCount: number
  readonly tenantCount: number
  readonly readCount: number
}

/** A read of one tenant; a scoped read may omit `where`. */
interface Read {
  /** The key of its figure. */
  readonly key: string
  readonly label: string
  readonly text: (where: string) => string
}

const columns = 'id, tenant_id, type, source, payload, correlation_id, created_at'

const reads: readonly Read[] = [
  {
    key: 'pageMs',
    label: 'newest 100',
    text: (where) => `select ${columns} from bus.events where ${where} order by id desc limit 100`,
  },
  {
    key: 'typeMs',
    label: 'newest 100 of a type',
    text: (where) =>
      `select ${columns} from bus.events where ${where} and type = 'order.placed' order by id desc limit 100`,
  },
  {
    key: 'correlationMs',
    label: 'a correlation',
    text: (where) =>
      `select ${columns} from bus.events where ${where} and correlation_id = 'flow-7' order by id`,
  },
  {
    key: 'countMs',
    label: 'count by type',
    text: (where) => `select type, count(*) from bus.events where ${where} group by type`,
  },
  {
    key: 'deliveriesMs',
    label: 'count of deliveries',
    text: (where) =>
      `select count(*) from bus.events e join bus.deliveries d on d.event_id = e.id and d.subscription_id = 1 where ${where}`,
  },
]

const sqlCase = 'ms a read, in SQL'
const apiCase = 'ms a read, through the bus'
const operatorCall = 'bus.events.find({ tenantId })'
const tenantCall = 'bus.tenant(id).events.find()'

/** Milliseconds of one read: the median of reads of tenants all over the log. */
async function timeReads(
  { readCount, tenantCount }: Sizes,
  read: (tenantId: string) => Promise<() => Promise<unknown>>,
): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < readCount + 20; i += 1) {
    const run = await read(`tenant-${(i * 7919) % tenantCount}`)
    const start = performance.now()
    await run()
    // The first reads plan their statements and fill the caches of the session.
    if (i >= 20) times.push(performance.now() - start)
  }
  return median(times)
}

/** The cost of the statements, without setting the tenant. */
async function measureSql(
  { url }: BenchDatabase,
  sizes: Sizes,
  variant: 'unscoped' | 'scoped' | 'forgotten',
): Promise<Figures> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    if (variant !== 'unscoped') await client.query('set role bus_tenant')
    const figures: Record<string, number> = {}
    for (const { key, text } of reads) {
      const statement = text(variant === 'forgotten' ? 'true' : 'tenant_id = $1')
      figures[key] = await timeReads(sizes, async (tenantId) => {
        if (variant !== 'unscoped')
          await client.query(`select set_config('bus.tenant_id', $1, false)`, [tenantId])
        return async () => client.query(statement, variant === 'forgotten' ? [] : [tenantId])
      })
    }
    return figures
  } finally {
    await client.end()
  }
}

async function measureApi(
  { url }: BenchDatabase,
  sizes: Sizes,
  scope: 'operator' | 'tenant',
): Promise<Figures> {
  const bus = createBus({ database: url, events: benchEvents, source: 'bench' })
  try {
    const findMs = await timeReads(sizes, async (tenantId) => async () => {
      const found = await (scope === 'operator'
        ? bus.events.find({ tenantId })
        : bus.tenant(tenantId).events.find())
      if (found.length === 0) throw new Error(`no events of ${tenantId}`)
    })
    return { findMs }
  } finally {
    await bus.stop()
  }
}

/** Spreads the events of every tenant over the whole log, as they would arrive. A tenth of them has a correlation. */
async function fillForTenants(
  bench: Bench,
  database: BenchDatabase,
  { eventCount, tenantCount }: Sizes,
): Promise<void> {
  bench.progress(
    `  filling a log with ${eventCount.toLocaleString('en-US')} events of ${tenantCount} tenants`,
  )
  const chunkSize = 100_000
  for (let from = 0; from < eventCount; from += chunkSize) {
    await database.query(
      `insert into bus.events (tenant_id, type, source, payload, correlation_id)
       select 'tenant-' || n % $3::int, case when n % 2 = 0 then 'order.placed' else 'order.shipped' end, 'bench',
         jsonb_build_object('number', n, 'note', repeat('x', 170)),
         case when n % 10 = 0 then 'flow-' || (n / $3::int) % 100 end
       from generate_series($1::int, $2::int - 1) n`,
      [from, Math.min(eventCount, from + chunkSize), tenantCount],
    )
  }
  await database.query('truncate bus.outbox')
  await database.query(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events`,
  )
  await database.query('vacuum analyze')
}

export const tenancy: Workload = {
  letter: 'j',
  name: 'tenancy',
  measures: 'reads of one tenant under row-level security, against the same reads without it',
  figures: [
    ...reads.map(({ key, label }) => ({ key, label, decimals: 3, lowerIsBetter: true })),
    { key: 'findMs', label: 'find(), 100 events', decimals: 3, lowerIsBetter: true },
  ],
  cases({ quick, eventCount }) {
    const sizes: Sizes = quick
      ? { eventCount: 5000, tenantCount: 25, readCount: 10 }
      : { eventCount: eventCount ?? 1_000_000, tenantCount: 1000, readCount: 300 }
    const size = `${sizes.eventCount.toLocaleString('en-US')} events of ${sizes.tenantCount.toLocaleString('en-US')} tenants`
    const onFilled = (
      name: string,
      variants: readonly {
        name: string
        note: string
        measure: (database: BenchDatabase) => Promise<Figures>
      }[],
    ): Case => {
      let filled: BenchDatabase | undefined
      return {
        name,
        size,
        reference: variants[0]?.name ?? '',
        async prepare(bench) {
          const database = await bench.server.createPreparedDatabase(size, async (template) =>
            fillForTenants(bench, template, sizes),
          )
          filled = database
          return async () => database.drop()
        },
        variants: variants.map((variant) => ({
          name: variant.name,
          note: variant.note,
          async run() {
            if (filled === undefined) throw new Error('no database')
            return variant.measure(filled)
          },
        })),
      }
    }
    return [
      onFilled(sqlCase, [
        {
          name: unscoped,
          note: 'as the owner, whom row-level security does not bind',
          measure: async (database) => measureSql(database, sizes, 'unscoped'),
        },
        {
          name: scoped,
          note: 'the statements alone: the tenant was set before',
          measure: async (database) => measureSql(database, sizes, 'scoped'),
        },
        {
          name: forgotten,
          note: 'the policy is the only condition on the tenant',
          measure: async (database) => measureSql(database, sizes, 'forgotten'),
        },
      ]),
      onFilled(apiCase, [
        {
          name: operatorCall,
          note: 'one statement',
          measure: async (database) => measureApi(database, sizes, 'operator'),
        },
        {
          name: tenantCall,
          note: 'two round trips: the scope, then the statement',
          measure: async (database) => measureApi(database, sizes, 'tenant'),
        },
      ]),
    ]
  },
  targets: [
    ...reads.map(({ key, label }) => ({
      text: `tenancy: ${label}, as bus_tenant against unscoped, the same WHERE`,
      bound: { atMost: 1.5 },
      measure: (cases: readonly CaseResult[]) => ratioWithin(cases, sqlCase, key, scoped, unscoped),
    })),
    {
      text: 'tenancy: bus.tenant(id).events.find() against bus.events.find({ tenantId })',
      bound: { atMost: 1.5 },
      measure: (cases) => ratioWithin(cases, apiCase, 'findMs', tenantCall, operatorCall),
    },
  ],
}
