import { version } from '../../foundation/version.ts'
import { apiChanges, apiReads, type CheckedGrant } from '../access.ts'
import { toOpenApi } from '../openapi.ts'
import { defineRoute, type ApiRoute } from '../route.ts'
import { anyObject, list, objectOf, optional, text, type Json } from '../schemas/schema.ts'
import { changeRoutes } from './change-routes.ts'
import { deadLetterRoutes } from './dead-letter-routes.ts'
import { eventRoutes } from './event-routes.ts'
import { operationRoutes } from './operation-routes.ts'
import { quarantineRoutes } from './quarantine-routes.ts'
import { queryRoutes } from './query-routes.ts'
import { stateRoutes } from './state-routes.ts'
import { subscriptionRoutes } from './subscription-routes.ts'
import { traceRoutes } from './trace-routes.ts'

interface Access {
  readonly by: string
  readonly tenantId: string | undefined
  readonly actions: readonly string[]
  readonly version: string
}

let document: Json | undefined

const aboutTheApi: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: undefined, method: 'GET', url: '/access', tag: 'API' },
    summary: 'Who sends this request, and what they may do here.',
    answer: objectOf<Access>({
      by: text(),
      tenantId: optional(text('The tenant that they belong to. Left out for operators.')),
      actions: list(text(), 'The actions that are granted and, for a tenant, have a form for it.'),
      version: text('Of bossbus.'),
    }),
    handle: async ({ grant }) => accessOf(grant),
    handleForTenant: async ({ grant }) => accessOf(grant),
  }),
  defineRoute({
    ...{ action: undefined, method: 'GET', url: '/openapi.json', tag: 'API' },
    summary: 'This document.',
    answer: anyObject(),
    handle: async () => (document ??= toOpenApi(apiRoutes)),
    handleForTenant: async () => (document ??= toOpenApi(apiRoutes)),
  }),
]

function accessOf({ by, tenantId, allows }: CheckedGrant): Access {
  const ofTenants = new Set(
    apiRoutes.flatMap(({ action, handleForTenant }) => (handleForTenant === undefined ? [] : [action])),
  )
  const actions = [...apiReads, ...apiChanges].filter(
    (action) => allows(action) && (tenantId === undefined || ofTenants.has(action)),
  )
  return { by, tenantId, actions, version }
}

/** Every route of the API: hosts, the document and the tests read this list. */
export const apiRoutes: readonly ApiRoute[] = [
  ...aboutTheApi,
  ...eventRoutes,
  ...traceRoutes,
  ...deadLetterRoutes,
  ...quarantineRoutes,
  ...operationRoutes,
  ...subscriptionRoutes,
  ...stateRoutes,
  ...queryRoutes,
  ...changeRoutes,
]
