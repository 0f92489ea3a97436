import type { BlockedKey } from '../../delivery/operator/blocked-keys.ts'
import type { RetryOptions } from '../../delivery/subscriptions/subscription-options.ts'
import type { RemoveOptions } from '../../operations/subscriptions.ts'
import { limits } from '../../foundation/limits.ts'
import { flagField, integerField, jsonField, objectField, required, textField, timeField } from '../fields.ts'
import { defineRoute, ofTenant, type ApiRoute } from '../route.ts'
import { flag, list, objectOf, ref } from '../schemas/schema.ts'
import { limit, reason, subscription, tenantId } from './filters.ts'
import { withoutStacks } from './without-stacks.ts'

const tag = 'Subscriptions'

const inPath = { name: required(subscription) } as const

const changed = objectOf<{ changed: boolean }>({
  changed: flag('False if it was so already: nothing was changed.'),
})

const steps = [
  ['pause', 'Pauses a subscription in every process, until it is resumed.'],
  ['resume', 'Resumes a subscription that is paused, or whose circuit breaker is open.'],
] as const

/** `bus.subscriptions` and `bus.blockedKeys`. */
export const subscriptionRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'subscriptions.list', method: 'GET', url: '/subscriptions', tag },
    summary: 'The subscriptions of all services, by name.',
    answer: objectOf<{ subscriptions: readonly object[] }>({ subscriptions: list(ref('Subscription')) }),
    handle: async ({ bus }) => ({ subscriptions: await bus.subscriptions.list() }),
  }),
  defineRoute({
    ...{ action: 'subscriptions.get', method: 'GET', url: '/subscriptions/:name', tag },
    summary: 'One subscription.',
    params: inPath,
    answer: ref('Subscription'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, params: { name } }) => bus.subscriptions.get(name),
  }),
  ...steps.map(([step, summary]) =>
    defineRoute({
      ...{ action: `subscriptions.${step}`, method: 'POST', url: `/subscriptions/:name/${step}`, tag },
      summary,
      params: inPath,
      body: { reason },
      answer: changed,
      errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
      handle: async ({ bus, by, params: { name }, body }) => ({
        changed: await bus.subscriptions[step](name, { by, reason: body.reason }),
      }),
    }),
  ),
  defineRoute({
    ...{ action: 'subscriptions.setOptions', method: 'POST', url: '/subscriptions/:name/options', tag },
    summary: 'Sets options in place of those of the code, until a time. Empty `options` end that.',
    params: inPath,
    body: {
      options: required(
        objectField({
          concurrency: integerField(limits.concurrency),
          retry: jsonField<RetryOptions>('All of `retry`.', { type: 'object' }),
          paused: flagField('True, or left out.'),
        }),
      ),
      expiresAt: timeField('At most 30 days ahead.'),
      expiresInSeconds: integerField({ min: 1, max: limits.overrideSeconds }),
      reason,
    },
    answer: ref('Subscription'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    async handle({ bus, by, params: { name }, body: { options, ...change } }) {
      // Whether `paused` is true is checked by the bus.
      await bus.subscriptions.setOptions(name, options as typeof options & { readonly paused?: true }, {
        ...change,
        by,
      })
      return bus.subscriptions.get(name)
    },
  }),
  defineRoute({
    ...{ action: 'subscriptions.rename', method: 'POST', url: '/subscriptions/:name/rename', tag },
    summary: 'Gives a subscription that no process serves another name.',
    params: inPath,
    body: { newName: required(textField(undefined, limits.subscriptionNameLength)), reason },
    answer: ref('Subscription'),
    errors: [
      'BUS_SUBSCRIPTION_NOT_FOUND',
      'BUS_SUBSCRIPTION_SERVED',
      'BUS_SUBSCRIPTION_NOT_EMPTY',
      'BUS_SUBSCRIPTION_TAKEN',
    ],
    async handle({ bus, by, params: { name }, body: { newName, reason: why } }) {
      await bus.subscriptions.rename(name, newName, { by, reason: why })
      return bus.subscriptions.get(newName)
    },
  }),
  defineRoute({
    ...{ action: 'subscriptions.remove', method: 'POST', url: '/subscriptions/:name/remove', tag },
    summary: 'Removes a subscription that no process serves.',
    params: inPath,
    body: {
      reason,
      waiting: jsonField<RemoveOptions['waiting']>('What becomes of what waits.', {
        anyOf: [
          { type: 'string', enum: ['refuse', 'discard'] },
          {
            type: 'object',
            properties: { moveTo: subscription.json },
            required: ['moveTo'],
            additionalProperties: false,
          },
        ],
      }),
    },
    status: 202,
    answer: ref('Operation'),
    errors: [
      'BUS_SUBSCRIPTION_NOT_FOUND',
      'BUS_SUBSCRIPTION_SERVED',
      'BUS_SUBSCRIPTION_NOT_EMPTY',
      'BUS_SUBSCRIPTION_NOT_COVERING',
    ],
    handle: async ({ bus, by, params: { name }, body }) => bus.subscriptions.remove(name, { ...body, by }),
  }),
  defineRoute({
    ...{ action: 'blockedKeys.list', method: 'GET', url: '/blocked-keys', tag },
    summary: 'The keys of ordered subscriptions that wait, longest first.',
    query: { subscription, tenantId, limit },
    answer: objectOf<{ blockedKeys: readonly BlockedKey[] }>({ blockedKeys: list(ref('BlockedKey')) }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, query }) => ({ blockedKeys: await bus.blockedKeys.list(query) }),
    handleForTenant: async ({ bus, tenantId: own, query }) => ({
      blockedKeys: (await bus.blockedKeys.list(ofTenant(query, own))).map(withoutStacks),
    }),
  }),
  defineRoute({
    ...{ action: 'blockedKeys.release', method: 'POST', url: '/blocked-keys/release', tag },
    summary: 'Releases a key: its failed event is tried again or skipped, and those behind it follow.',
    body: {
      subscription: required(subscription),
      tenantId: required(textField()),
      orderingKey: required(textField()),
      skipFailed: flagField('The failed event is skipped, and stays a dead letter.'),
      reason,
    },
    answer: objectOf<{ released: boolean }>({
      released: flag('False if it did not wait for a person: nothing was changed.'),
    }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, by, body }) => ({ released: await bus.blockedKeys.release({ ...body, by }) }),
    handleForTenant: async ({ bus, by, tenantId: own, body }) => ({
      released: await bus.blockedKeys.release({ ...ofTenant(body, own), by }),
    }),
  }),
]
