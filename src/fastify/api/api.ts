import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { actorLength } from '../../audit/audit.ts'
import { BusError, type BusErrorCode } from '../../foundation/errors.ts'
import { assertObject, assertTextOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { ApiActor, ResolvedApiOptions } from './api-options.ts'
import type { ApiBus, ApiRequest, ApiRoute } from './api-route.ts'
import { subscriptionRoutes } from './subscription-routes.ts'

/** The status of errors that say something about the request. The others have that of the error. */
const statuses: Readonly<Partial<Record<BusErrorCode, number>>> = {
  BUS_INVALID_OPTION: 400,
  BUS_SUBSCRIPTION_NOT_FOUND: 404,
  BUS_OPERATION_NOT_FOUND: 404,
  BUS_SUBSCRIPTION_SERVED: 409,
  BUS_SUBSCRIPTION_NOT_EMPTY: 409,
  BUS_SUBSCRIPTION_TAKEN: 409,
}

/** Adds the routes in a scope of their own: its parsers and its error handler are not those of the app. */
export async function registerApi(
  app: FastifyInstance,
  bus: ApiBus,
  { authorize, prefix }: ResolvedApiOptions,
): Promise<void> {
  await app.register(
    (scope, _options, done) => {
      acceptJsonOnly(scope)
      scope.setErrorHandler(answerError)
      const routes = subscriptionRoutes(bus)
      for (const route of routes) addRoute(scope, route, authorize)
      done()
    },
    { prefix },
  )
}

/** No page of another origin can send JSON without asking first, so no form and no link changes anything. */
function acceptJsonOnly(scope: FastifyInstance): void {
  const { onProtoPoisoning, onConstructorPoisoning } = scope.initialConfig
  const parseJson = scope.getDefaultJsonParser(onProtoPoisoning ?? 'error', onConstructorPoisoning ?? 'error')
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', { parseAs: 'string' }, parseJson)
}

function addRoute(
  scope: FastifyInstance,
  { action, method, url, schema, bodyKeys = [], status = 200, handle }: ApiRoute,
  authorize: ResolvedApiOptions['authorize'],
): void {
  const actors = new WeakMap<FastifyRequest, ApiActor>()
  scope.route({
    method,
    url,
    schema,
    async onRequest(request, reply) {
      void reply.header('cache-control', 'no-store')
      const { name } = request.params as { readonly name?: string }
      const actor = await authorize(request, { action, changes: method === 'POST', subscription: name })
      if (actor === undefined || actor === null)
        return refuse(reply, 403, 'Forbidden', `You may not call ${action}`)
      assertObject('`api.authorize` to return who it is, like { by }', actor)
      assertTextOption('by', actor.by, actorLength)
      actors.set(request, { by: actor.by })
      const type = request.headers['content-type'] ?? ''
      if (method === 'POST' && !/^application\/json\s*(?:;|$)/i.test(type))
        return refuse(
          reply,
          415,
          'Unsupported Media Type',
          'Expected a body of the content type application/json',
        )
      return undefined
    },
    // Before the validation, which would leave out what it does not know.
    async preValidation(request) {
      if (method === 'POST' && request.body !== null && typeof request.body === 'object')
        refuseUnknownKeys(request.body, bodyKeys, action)
    },
    async handler(request, reply) {
      void reply.code(status)
      return handle({
        by: actors.get(request)?.by ?? '',
        params: request.params as ApiRequest['params'],
        body: (request.body ?? {}) as ApiRequest['body'],
      })
    },
  })
}

function refuse(reply: FastifyReply, statusCode: number, error: string, message: string): FastifyReply {
  return reply.code(statusCode).send({ statusCode, error, message })
}

/** Fastify answers its own errors, and those of the app's hooks. */
function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (!(error instanceof BusError)) {
    void reply.send(error)
    return
  }
  const statusCode = statuses[error.code] ?? error.statusCode
  if (statusCode >= 500) request.log.error({ err: error }, 'a request to the bus failed')
  void reply.code(statusCode).send({ statusCode, code: error.code, message: error.message })
}
