import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BusError, HttpError } from '../../foundation/errors.ts'
import { checkGrant, isRead, type CheckedGrant } from '../../http/access.ts'
import { assertGranted, callRoute } from '../../http/call-route.ts'
import { notFound, toErrorAnswer, unsaid } from '../../http/errors.ts'
import { isFromThisMachine } from '../../http/loopback.ts'
import { parseRequestJson } from '../../http/request-json.ts'
import type { ApiBus, ApiRoute } from '../../http/route.ts'
import { apiRoutes } from '../../http/routes/all.ts'
import { assertSameOrigin } from '../../http/same-origin.ts'
import type { ApiAccess, ResolvedApiOptions } from './api-options.ts'
import { hiddenSchema } from './hidden-schema.ts'

/** The most bytes that a body may have where its route does not say. */
const bodyLimit = 1_048_576

const json = 'application/json; charset=utf-8'

/** Whoever develops on this machine. */
const developer = { by: 'development', allow: ['all', 'publishByHand'] } as const

/**
 * Adds the routes in a scope of their own. Their parser, their checks and their errors are their own, whatever validator, serializer or error
 * handler the app has; hooks of the app run before them.
 */
export async function registerApi(
  app: FastifyInstance,
  bus: ApiBus,
  { access, prefix, readOnly }: ResolvedApiOptions,
): Promise<void> {
  if (access === undefined) return
  const decide = access === 'development' ? grantDeveloper : access
  await app.register(
    (scope, _options, done) => {
      scope.removeAllContentTypeParsers()
      scope.addContentTypeParser(
        'application/json',
        { parseAs: 'string' },
        async (_request: FastifyRequest, text: string) =>
          text.trim() === '' ? undefined : parseRequestJson(text, 'the body'),
      )
      scope.addHook('onRequest', async (request, reply) => {
        void reply.headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
        // Before a body is read.
        if (request.is404) refuseUnknown(request, reply, scope.prefix)
      })
      scope.setErrorHandler(answerError)
      // What is not there below this prefix is not the app's.
      scope.setNotFoundHandler((request, reply) => refuseUnknown(request, reply, scope.prefix))
      for (const route of apiRoutes) addRoute(scope, bus, route, { decide, readOnly })
      done()
    },
    { prefix: `${prefix}/api` },
  )
}

interface Deciding {
  readonly decide: ApiAccess
  readonly readOnly: boolean
}

function addRoute(
  scope: FastifyInstance,
  bus: ApiBus,
  route: ApiRoute,
  { decide, readOnly }: Deciding,
): void {
  const { action, method, url, status = 200 } = route
  const changes = action !== undefined && !isRead(action)
  const grants = new WeakMap<FastifyRequest, CheckedGrant>()
  scope.route({
    method,
    url,
    // Whatever the app says for its own.
    exposeHeadRoute: method === 'GET',
    bodyLimit: route.bodyLimit ?? bodyLimit,
    config: { bossbus: { action } },
    // They have a document of their own.
    schema: hiddenSchema(),
    async onRequest(request) {
      const grant = toGrant(await decide(request, { action, changes }), readOnly)
      grants.set(request, assertGranted(route, grant))
      if (method !== 'POST') return
      const type = request.headers['content-type'] ?? ''
      if (!/^application\/json\s*(?:;|$)/i.test(type))
        throw new HttpError(
          415,
          'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
          'Expected a body of the content type application/json',
        )
      assertSameOrigin(request.headers, request.host)
    },
    async handler(request, reply) {
      const at = request.url.indexOf('?')
      const text = await callRoute(bus, route, {
        grant: grants.get(request) as CheckedGrant,
        params: request.params as Readonly<Record<string, string>>,
        query: at === -1 ? '' : request.url.slice(at + 1),
        body: request.body,
      })
      // As text, so that no serializer and no hook of the app changes it.
      return reply.code(status).type(json).send(text)
    },
  })
}

/** What is wrong with a grant is a mistake of the app, not of who sends the request. */
function toGrant(returned: unknown, readOnly: boolean): CheckedGrant | undefined {
  try {
    const grant = checkGrant(returned)
    return grant === undefined || !readOnly
      ? grant
      : { ...grant, allows: (action) => isRead(action) && grant.allows(action) }
  } catch (cause) {
    throw new HttpError(500, 'BUS_HTTP_ERROR', unsaid, { cause })
  }
}

/** A page of another origin is nobody who sits at this machine: with CORS in the app it could read, too. */
function grantDeveloper(request: FastifyRequest): typeof developer | undefined {
  const { headers, host, raw } = request
  if (!isFromThisMachine({ address: raw.socket.remoteAddress, headers })) return undefined
  if (headers.origin !== undefined) assertSameOrigin(headers, host)
  return developer
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const answer = toErrorAnswer(error)
  // A plugin of the app that says 503, because it is under load, is no failure of the bus.
  const isOfApp = !(error instanceof BusError) && answer.statusCode === 503
  if (answer.statusCode >= 500 && !isOfApp) request.log.error({ err: error }, 'a request to the bus failed')
  void reply.code(answer.statusCode).type(json).send(JSON.stringify(answer))
}

/** The routes by their paths, for methods that they do not have. */
const paths = new Map(
  apiRoutes.map(({ url }) => [
    url,
    new RegExp(`^${url.replaceAll(/:\w+/g, '[^/]+').replaceAll('.', '\\.')}$`),
  ]),
)

/** @throws an {@link HttpError} `BUS_HTTP_NOT_FOUND`, or `BUS_HTTP_METHOD_NOT_ALLOWED` if another method is there */
function refuseUnknown({ url, method }: FastifyRequest, reply: FastifyReply, prefix: string): never {
  const path = (url.split('?', 1)[0] ?? '').slice(prefix.length)
  const methods = apiRoutes.filter((route) => paths.get(route.url)?.test(path)).map((route) => route.method)
  if (methods.length === 0) throw notFound(`There is no route ${method} ${(path || prefix).slice(0, 200)}`)
  const allowed = [...new Set(methods)].flatMap((each) => (each === 'GET' ? ['GET', 'HEAD'] : [each]))
  void reply.header('allow', allowed.join(', '))
  throw new HttpError(
    405,
    'BUS_HTTP_METHOD_NOT_ALLOWED',
    `Expected the method ${allowed.join(' or ')}, got ${method}`,
  )
}
