import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Bus } from '../../bus-interface.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import { prometheusContentType } from '../../telemetry/prometheus/text-format.ts'
import type { ResolvedApiOptions } from './api-options.ts'
import { hiddenSchema } from './hidden-schema.ts'

/** After this a readiness probe says no: those who ask do not wait longer. */
const readyLimitMs = 3000

/** Adds the routes for the probes of an orchestrator, and for Prometheus. They need no access, and do not log each request. */
export function registerProbes(
  app: FastifyInstance,
  bus: Pick<Bus, 'health' | 'live' | 'metrics' | 'state'>,
  { livePath, readyPath, metricsPath }: ResolvedApiOptions,
): void {
  let asking: Promise<object & { readonly ready: boolean }> | undefined

  /** Probes at the same time share one answer. */
  async function readiness(): Promise<object & { readonly ready: boolean }> {
    asking ??= bus
      .health()
      .then(({ ready, state, database }) => ({ ready, state, database }))
      .finally(() => {
        asking = undefined
      })
    return withTimeout(asking, readyLimitMs, () => ({ ready: false, state: bus.state, database: 'down' }))
  }

  if (livePath !== undefined)
    addProbe(app, livePath, async () => ({ ok: bus.live, body: { live: bus.live, state: bus.state } }))
  if (readyPath !== undefined)
    addProbe(app, readyPath, async () => {
      const body = await readiness()
      return { ok: body.ready, body }
    })
  if (metricsPath !== undefined)
    app.route({
      method: 'GET',
      url: metricsPath,
      logLevel: 'warn',
      schema: hiddenSchema(),
      handler: async (_request, reply: FastifyReply) =>
        reply
          .header('cache-control', 'no-store')
          .type(prometheusContentType)
          .send(await bus.metrics()),
    })
}

function addProbe(
  app: FastifyInstance,
  url: string,
  ask: () => Promise<{ readonly ok: boolean; readonly body: object }>,
): void {
  app.route({
    method: 'GET',
    url,
    logLevel: 'warn',
    schema: hiddenSchema(),
    async handler(_request, reply: FastifyReply) {
      const { ok, body } = await ask()
      return reply
        .code(ok ? 200 : 503)
        .headers({ 'cache-control': 'no-store' })
        .type('application/json; charset=utf-8')
        .send(JSON.stringify(body))
    },
  })
}
