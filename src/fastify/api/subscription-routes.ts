import { limits } from '../../foundation/limits.ts'
import type { ApiBus, ApiRoute } from './api-route.ts'
import type { RemoveOptions } from '../../operations/subscriptions.ts'

const name = {
  type: 'object',
  properties: { name: { type: 'string', minLength: 1, maxLength: limits.subscriptionNameLength } },
  required: ['name'],
} as const

const reason = { type: 'string', maxLength: 2000 } as const

const bodyOf = (properties: object) => ({ type: 'object', properties, additionalProperties: false }) as const

/** The fields of `bus.subscriptions.get`; times are ISO 8601. */
const subscription = {
  type: 'object',
  properties: {
    name: { type: 'string' },
    service: { type: 'string' },
    state: { type: 'string', enum: ['active', 'paused', 'circuit open', 'unserved'] },
    events: { type: 'array', items: { type: 'string' } },
    waitingCount: { type: 'integer' },
    instanceCount: { type: 'integer' },
  },
  additionalProperties: true,
} as const

const changed = {
  type: 'object',
  properties: { changed: { type: 'boolean' } },
  required: ['changed'],
} as const

/** The fields of `bus.operations.get`. */
const operation = {
  type: 'object',
  properties: { id: { type: 'string' }, kind: { type: 'string' }, state: { type: 'string' } },
  additionalProperties: true,
} as const

/** `bus.subscriptions` over HTTP, with the same names. */
export function subscriptionRoutes({ subscriptions }: ApiBus): readonly ApiRoute[] {
  return [
    {
      action: 'subscriptions.list',
      method: 'GET',
      url: '/subscriptions',
      schema: {
        response: {
          200: { type: 'object', properties: { subscriptions: { type: 'array', items: subscription } } },
        },
      },
      handle: async () => ({ subscriptions: await subscriptions.list() }),
    },
    {
      action: 'subscriptions.get',
      method: 'GET',
      url: '/subscriptions/:name',
      schema: { params: name, response: { 200: subscription } },
      handle: async ({ params }) => subscriptions.get(params['name'] ?? ''),
    },
    {
      action: 'subscriptions.pause',
      method: 'POST',
      url: '/subscriptions/:name/pause',
      schema: { params: name, body: bodyOf({ reason }), response: { 200: changed } },
      bodyKeys: ['reason'],
      handle: async ({ by, params, body }) => ({
        changed: await subscriptions.pause(params['name'] ?? '', {
          by,
          reason: body['reason'] as string | undefined,
        }),
      }),
    },
    {
      action: 'subscriptions.resume',
      method: 'POST',
      url: '/subscriptions/:name/resume',
      schema: { params: name, body: bodyOf({ reason }), response: { 200: changed } },
      bodyKeys: ['reason'],
      handle: async ({ by, params, body }) => ({
        changed: await subscriptions.resume(params['name'] ?? '', {
          by,
          reason: body['reason'] as string | undefined,
        }),
      }),
    },
    {
      action: 'subscriptions.remove',
      method: 'POST',
      url: '/subscriptions/:name/remove',
      schema: { params: name, body: bodyOf({ reason, waiting: {} }), response: { 202: operation } },
      bodyKeys: ['reason', 'waiting'],
      status: 202,
      // What `waiting` may be is checked by the bus.
      handle: async ({ by, params, body }) =>
        subscriptions.remove(params['name'] ?? '', { ...(body as Partial<RemoveOptions>), by }),
    },
  ]
}
