import type { FastifySchema } from 'fastify'
import type { Bus } from '../../bus.ts'

/** A request that has been let in. */
export interface ApiRequest {
  /** Who sends it, for the audit. */
  readonly by: string
  readonly params: Readonly<Record<string, string>>
  readonly body: Readonly<Record<string, unknown>>
}

/** A route of the API: a method of the bus. */
export interface ApiRoute {
  /** The method of the bus, such as `subscriptions.pause`. */
  readonly action: string
  /** `POST` changes something, and requires JSON. */
  readonly method: 'GET' | 'POST'
  readonly url: string
  readonly schema: FastifySchema
  /** The properties that a body may have. */
  readonly bodyKeys?: readonly string[]
  /** The status of success. @defaultValue `200` */
  readonly status?: number
  readonly handle: (request: ApiRequest) => Promise<object>
}

/** What the routes need of a bus. */
export type ApiBus = Pick<Bus, 'subscriptions'>
