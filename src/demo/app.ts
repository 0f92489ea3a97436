import { randomUUID } from 'node:crypto'
import { DrizzleQueryError } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import { fastify, type FastifyError, type FastifyInstance, type FastifyServerOptions } from 'fastify'
import postgres from 'postgres'
import { bus } from '../fastify/index.ts'
import { addCaseRoutes, openCases, type CaseOptions } from './cases.ts'
import { events } from './events.ts'
import { addPaymentRoutes } from './payments.ts'
import { createTables } from './schema.ts'

/** Options of the payments service. */
export interface AppOptions extends CaseOptions {
  readonly databaseUrl: string
  /** Fastify's option. @defaultValue no logging */
  readonly logger?: FastifyServerOptions['logger']
}

/** The payments service: Drizzle on postgres.js for its own tables, the bus for its events. */
export async function buildApp({
  databaseUrl,
  logger = false,
  ...caseOptions
}: AppOptions): Promise<FastifyInstance> {
  const app = fastify({
    logger,
    genReqId: () => randomUUID(),
    // The first start creates every table, on a machine of unknown speed.
    pluginTimeout: 60_000,
    // Amounts must not be coerced: "100" and true are not amounts.
    ajv: { customOptions: { coerceTypes: false } },
  })
  const sql = await openClient(databaseUrl)
  const db = drizzle(sql)
  // Fastify closes in the reverse order of starting: the bus stops while the database is still connected.
  app.addHook('onReady', async () => createTables(sql))
  app.addHook('onClose', async () => sql.end({ timeout: 5 }))
  await app.register(bus, {
    database: databaseUrl,
    events,
    source: 'payment-service',
    migrate: true,
    graceMs: 10_000,
  })
  openCases(app.bus, db, caseOptions)
  app.setErrorHandler(answerError)
  addPaymentRoutes(app, db)
  addCaseRoutes(app, db)
  app.get('/health', async (_, reply) => {
    const health = await app.bus.health()
    return reply.code(health.ready ? 200 : 503).send(health)
  })
  app.get('/live', async (_, reply) => {
    const { live } = await app.bus.health()
    return reply.code(live ? 200 : 503).send({ live })
  })
  return app
}

/**
 * Behind a pooler in transaction mode prepared statements disappear, and with them commits of postgres.js: see
 * docs/drivers.md.
 */
async function openClient(databaseUrl: string): Promise<postgres.Sql> {
  const options = { onnotice: () => {} }
  const sql = postgres(databaseUrl, options)
  const rows = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`
  // A pooler invents the process id that it reports to its clients.
  if (rows[0]?.pid === rows.state.pid) return sql
  await sql.end()
  return postgres(databaseUrl, { ...options, prepare: false })
}

/** Drizzle's error lists every parameter of the statement, so its message goes neither to the client nor to the log. */
const answerError: Parameters<FastifyInstance['setErrorHandler']>[0] = (error, request, reply) => {
  if (((error as FastifyError).statusCode ?? 500) < 500) return reply.send(error)
  const { code, message } = (error instanceof DrizzleQueryError ? error.cause : error) as FastifyError
  request.log.error({ errorCode: code, reason: message }, 'a request failed')
  return reply.code(500).send({ statusCode: 500, error: 'Internal Server Error', message: 'See the log' })
}
