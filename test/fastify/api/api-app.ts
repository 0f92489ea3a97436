import type { FastifyInstance, FastifyRequest, FastifyServerOptions, LightMyRequestResponse } from 'fastify'
import { bus as busPlugin, type ApiGrant, type ApiOptions } from '../../../src/fastify/index.ts'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { testApp } from '../app.ts'

/** Lets in who says a name: may do what `x-allow` says, for the tenant in `x-tenant`. */
export function accessByHeaders({ headers }: FastifyRequest): ApiGrant | undefined {
  const { 'x-user': by, 'x-allow': allow = 'all', 'x-tenant': tenantId } = headers
  if (typeof by !== 'string' || typeof allow !== 'string') return undefined
  return {
    by,
    allow: allow.split(',') as 'all'[],
    ...(typeof tenantId === 'string' ? { tenantId } : {}),
  }
}

export interface ApiApp {
  readonly app: FastifyInstance
  readonly bus: PaymentBus
  readonly database: TestDatabase
  readonly get: (url: string, headers?: Record<string, string>) => Promise<LightMyRequestResponse>
  readonly post: (
    url: string,
    body?: unknown,
    headers?: Record<string, string>,
  ) => Promise<LightMyRequestResponse>
}

interface ApiAppOptions {
  readonly api?: Partial<ApiOptions>
  readonly server?: FastifyServerOptions
  /** Called before the bus starts. */
  readonly prepare?: (bus: PaymentBus, app: FastifyInstance) => unknown
  readonly options?: Parameters<typeof testBus>[1]
}

/** An app with the API of a bus that runs on a database of its own. Requests are sent by ana, unless they say otherwise. */
export async function openApiApp({ api, server, prepare, options }: ApiAppOptions = {}): Promise<ApiApp> {
  const database = await createTestDatabase()
  const app = testApp(server)
  const bus = testBus(database.url, options)
  await prepare?.(bus, app)
  await app.register(busPlugin, { bus: bus as never, api: { access: accessByHeaders, ...api } })
  await app.ready()
  return { app, bus, database, ...requestsTo(app) }
}

/** Sends requests in ana's name. */
export function requestsTo(app: FastifyInstance): Pick<ApiApp, 'get' | 'post'> {
  return {
    get: async (url, headers = {}) => app.inject({ url, headers: { 'x-user': 'ana', ...headers } }),
    post: async (url, body = {}, headers = {}) =>
      app.inject({
        method: 'POST',
        url,
        headers: { 'x-user': 'ana', 'content-type': 'application/json', ...headers },
        payload: typeof body === 'string' ? body : JSON.stringify(body),
      }),
  }
}

/** A value as JSON has it. */
export const asJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) as unknown
