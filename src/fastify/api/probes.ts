import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Bus } from '../../bus-interface.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import { prometheusContentType } from '../../telemetry/prometheus/text-format.ts'
import type { ResolvedApiOptions } from './api-options.ts'
import { hiddenSchema } from './hidden-schema.ts'

/** After this a readiness probe says no: those who ask do not wait longer. */
const readyLimitMs = 3000

/** Adds the routes for machines: the probes of an orchestrator, and Prometheus. They need no access, and do not log each request. */
export function registerProbes(
  app: FastifyInstance,
  bus: Pick<Bus, 'health' | 'live' | 'metrics' | 'state'>,
  { livePath, readyPath, metricsPath }: ResolvedApiOptions,
): void {
  let asking: Promise<Readiness> | undefined

  /** Probes at the same time share one answer. */
  async function readiness(): Promise<Readiness> {
    asking ??= bus
      .health()
      .then(({ ready, state, database }) => ({ ready, state, database }))
      .finally(() => {
        asking = undefined
      })
    return withTimeout(asking, readyLimitMs, () => ({ ready: false, state: bus.state, database: 'down' }))
  }

  if (livePath !== undefined)
    addRoute(app, livePath, async () => toAnswer(bus.live, { live: bus.live, state: bus.state }))
  if (readyPath !== undefined)
    addRoute(app, readyPath, async () => {
      const body = await readiness()
      return toAnswer(body.ready, body)
    })
  if (metricsPath !== undefined)
    addRoute(app, metricsPath, async () => ({
      status: 200,
      type: prometheusContentType,
      text: await bus.metrics(),
    }))
}

interface Readiness {
  readonly ready: boolean
  readonly state: string
  readonly database: string
}

interface Answer {
  readonly status: 200 | 503
  readonly type: string
  readonly text: string
}

function toAnswer(isFine: boolean, body: object): Answer {
  return {
    status: isFine ? 200 : 503,
    type: 'application/json; charset=utf-8',
    text: JSON.stringify(body),
  }
}

function addRoute(app: FastifyInstance, url: string, ask: () => Promise<Answer>): void {
  app.route({
    method: 'GET',
    url,
    exposeHeadRoute: true,
    logLevel: 'warn',
    schema: hiddenSchema(),
    async handler(_request, reply: FastifyReply) {
      const { status, type, text } = await ask()
      return reply.code(status).header('cache-control', 'no-store').type(type).send(text)
    },
  })
}
