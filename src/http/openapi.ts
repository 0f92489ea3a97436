import { busErrorCodes, type BusErrorCode } from '../foundation/errors.ts'
import { version } from '../foundation/version.ts'
import { isRead } from './access.ts'
import { statusOf, type ErrorAnswer } from './errors.ts'
import { objectSchema, type Fields } from './fields.ts'
import type { ApiRoute } from './route.ts'
import { componentSchemas } from './schemas/components.ts'
import { choice, integer, objectOf, optional, text, type Json } from './schemas/schema.ts'

const description = `What operators do with a bus: find events and where they are, statistics, dead letters, replays, subscriptions, retention.

Every route is a method of the bus with the same name, filters and errors; docs/guide/http.md has an overview, docs/errors.md the codes.

**Security.** The app decides in \`api.access\` who sends a request, what they may do and which tenant they belong to: without it there is no route. How it recognises them (a header, a cookie, a certificate) is its own matter. What is not granted is answered with 403. Somebody who belongs to a tenant reads and changes what is of that tenant alone; what has no form for one tenant is answered with 403. Changes must be JSON, and are refused when a page of another origin sends them. Each is recorded with its actor.

**Lists** have \`next\` while there is more: pass it as \`after\`. A page may have fewer items than \`limit\` where these are large. In a query, several values are repeated or separated by commas (\`\\,\` is a comma), times are ISO 8601 with a zone. Unknown parameters are refused.`

/** Schemas that every document has besides those of answers. */
const errorSchema = objectOf<ErrorAnswer>(
  {
    statusCode: integer(),
    code: choice(...busErrorCodes),
    message: text('For people. It may change.'),
    option: optional(text('The parameter that is wrong, where it is one.')),
  },
  'How every error is answered.',
)

/** What each status says, of whatever route. */
const statusTexts: Readonly<Record<number, string>> = {
  400: 'A parameter is unknown or wrong, or the body is not JSON.',
  401: 'The app does not know who sends the request.',
  403: 'It is not granted, not for one tenant alone, or sent by a page of another origin.',
  404: 'What it names is not there.',
  409: 'The state of what it names does not allow it.',
  413: 'The body, or the payload in it, is too large.',
  415: 'The body is not of the type application/json.',
  429: 'There were too many requests.',
  500: 'Something failed; the log of the app says what.',
  503: 'The database does not answer, or the app takes no more requests for now.',
}

/** The OpenAPI 3.1 document of some routes. It names no host and no path, so that it is right behind any prefix and proxy. */
export function toOpenApi(routes: readonly ApiRoute[]): Json {
  const paths: Record<string, Record<string, Json>> = {}
  for (const route of routes) {
    const path = route.url.replaceAll(/:(\w+)/g, '{$1}')
    const operations = (paths[path] ??= {})
    operations[route.method.toLowerCase()] = toOperation(route)
  }
  return {
    openapi: '3.1.0',
    info: { title: 'bossbus', version, description, license: { name: 'MIT', identifier: 'MIT' } },
    servers: [{ url: './', description: 'The folder of this document.' }],
    security: [{ app: [] }],
    tags: [...new Set(routes.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: {
      schemas: { ...componentSchemas, Error: errorSchema.json },
      responses: Object.fromEntries(
        Object.entries(statusTexts).map(([status, text]) => [
          `Error${status}`,
          {
            description: text,
            content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
          },
        ]),
      ),
      securitySchemes: {
        app: {
          type: 'apiKey',
          in: 'header',
          name: 'authorization',
          description: 'Stands for whatever `api.access` of the app looks at.',
        },
      },
    },
  }
}

function toOperation(route: ApiRoute): Json {
  const { action, method, url, tag, summary, params = {}, query = {}, body = {}, status = 200 } = route
  const named = route.description
  return {
    operationId: action ?? url.slice(1).replaceAll(/\W/g, '-'),
    tags: [tag],
    summary,
    description: [named, accessOf(route)].filter((part) => part !== undefined).join('\n\n'),
    parameters: [...toParameters(params, 'path'), ...toParameters(query, 'query')],
    ...(method === 'POST'
      ? {
          requestBody: {
            required: Object.values(body).some(({ isRequired }) => isRequired),
            content: { 'application/json': { schema: objectSchema(body) } },
          },
        }
      : {}),
    responses: {
      [status]: {
        description: status === 202 ? 'It has begun, and goes on by itself.' : 'Done.',
        content: { 'application/json': { schema: route.answer.json } },
      },
      ...Object.fromEntries(
        statusesOf(route).map((each) => [each, { $ref: `#/components/responses/Error${each}` }]),
      ),
    },
  }
}

/** Who may call it. */
function accessOf({ action, handleForTenant }: ApiRoute): string {
  if (action === undefined) return 'For everybody to whom anything is granted.'
  const granted = isRead(action) ? `\`read\`, \`all\` or \`${action}\`` : `\`all\` or \`${action}\``
  const tenants =
    handleForTenant === undefined
      ? 'Not for those who belong to a tenant.'
      : 'For those who belong to a tenant: its events alone.'
  return `Granted by ${action === 'publishByHand' ? `\`${action}\` alone` : granted}. ${tenants}`
}

function toParameters(fields: Fields, place: 'path' | 'query'): readonly Json[] {
  return Object.entries(fields).map(([name, { json, isRequired, isList, isJson }]) => {
    const { description: text, ...schema } = json
    return {
      name,
      in: place,
      required: place === 'path' || isRequired,
      ...(typeof text === 'string' ? { description: text } : {}),
      ...(isJson === true ? { content: { 'application/json': { schema } } } : { schema }),
      ...(isList === true ? { style: 'form', explode: false } : {}),
    }
  })
}

/** The statuses of errors that a route may answer with. */
function statusesOf({ method, errors = [] }: ApiRoute): readonly number[] {
  const always = [400, 401, 403, 429, 500, 503]
  const ofBody = method === 'POST' ? [413, 415] : []
  const own = errors.map((code: BusErrorCode) => statusOf(code))
  return [...new Set([...always, ...ofBody, ...own])].toSorted((a, b) => a - b)
}
