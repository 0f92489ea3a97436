import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { expect, test } from 'vitest'
import { busErrorCodes, limits } from '../../../src/index.ts'
import { statusOf } from '../../../src/http/errors.ts'
import { apiRoutes } from '../../../src/http/routes/all.ts'
import { openApiApp } from './api-app.ts'

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly schema?: object
  readonly content?: object
}

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly description: string
  readonly tags: readonly string[]
  readonly parameters: readonly Parameter[]
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly schema: Readonly<Record<string, object>> }>>
  }
  readonly responses: Readonly<Record<string, object>>
}

interface Document {
  readonly openapi: string
  readonly servers: readonly { readonly url: string }[]
  readonly security: readonly object[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: Readonly<Record<string, Readonly<Record<string, object>>>>
}

async function readDocument(): Promise<Document> {
  const { get } = await openApiApp()
  return (await get('/bus/api/openapi.json')).json<Document>()
}

test('the document is valid OpenAPI 3.1, by the schema of its authors', async () => {
  const document = await readDocument()
  const validator = new Validator()
  const result = await validator.validate(structuredClone({ ...document }))
  expect(result).toMatchObject({ valid: true })
  expect(validator.version).toBe('3.1')
  // It would find what is wrong.
  const { openapi, ...rest } = document
  expect(await new Validator().validate({ openapi, ...rest, paths: { events: {} } })).toMatchObject({
    valid: false,
  })
})

test('it has every route, with its parameters, its body, its answer and its errors', async () => {
  const { paths, components } = await readDocument()
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
  expect(operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).toSorted()).toEqual(
    apiRoutes.map(({ method, url }) => `${method} ${url.replaceAll(/:(\w+)/g, '{$1}')}`).toSorted(),
  )
  const ids = operations.map(({ operation }) => operation.operationId)
  expect(new Set(ids).size).toBe(ids.length)
  for (const route of apiRoutes) {
    const { method, url, params = {}, query = {}, body = {}, errors = [], status = 200 } = route
    const operation = paths[url.replaceAll(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()]
    expect([url, operation?.summary]).toEqual([url, expect.stringMatching(/^[A-Z].*\.$/)])
    expect([url, operation?.description]).toEqual([
      url,
      expect.stringMatching(/^(?:Granted|For|[^]*\n\nGranted)/),
    ])
    expect([url, operation?.parameters.map((each) => `${each.in} ${each.name}`)]).toEqual([
      url,
      [
        ...Object.keys(params).map((name) => `path ${name}`),
        ...Object.keys(query).map((name) => `query ${name}`),
      ],
    ])
    expect(url.match(/:\w+/g) ?? []).toEqual(Object.keys(params).map((name) => `:${name}`))
    const schema = operation?.requestBody?.content['application/json']?.schema
    expect([url, Object.keys(schema?.['properties'] ?? {})]).toEqual([url, Object.keys(body)])
    expect([url, schema?.['additionalProperties']]).toEqual([url, method === 'POST' ? false : undefined])
    const statuses = Object.keys(operation?.responses ?? {})
    const ofBodies = method === 'POST' ? [413, 415] : []
    for (const each of [status, 400, 401, 403, 429, 500, 503, ...ofBodies, ...errors.map(statusOf)])
      expect([url, statuses]).toEqual([url, expect.arrayContaining([String(each)])])
  }
  expect(components['schemas']?.['Error']).toMatchObject({
    properties: { code: { enum: [...busErrorCodes] } },
    required: ['statusCode', 'code', 'message'],
  })
  expect(components['securitySchemes']).toHaveProperty('app')
})

test('bounds of numbers are those of the bus', async () => {
  const { paths } = await readDocument()
  const rateOf = (path: string): unknown =>
    paths[path]?.['post']?.requestBody?.content['application/json']?.schema['properties']
  for (const path of ['/replay', '/dead-letters/redrive'])
    expect([path, rateOf(path)]).toMatchObject([
      path,
      { rate: { minimum: 1, maximum: limits.operationRate } },
    ])
})

test('every reference leads to something, everything that is named is used, and every schema compiles', async () => {
  const document = await readDocument()
  const text = JSON.stringify(document)
  const references = new Set(
    [...text.matchAll(/"\$ref":"#\/components\/(\w+)\/(\w+)"/g)].map(([, kind, name]) => `${kind} ${name}`),
  )
  const named = ['schemas', 'responses'].flatMap((kind) =>
    Object.keys(document.components[kind] ?? {}).map((name) => `${kind} ${name}`),
  )
  expect([...references].toSorted()).toEqual(named.toSorted())
  const ajv = new Ajv2020({
    strict: true,
    strictRequired: false,
    allowUnionTypes: true,
    validateSchema: true,
  })
  addFormats.default(ajv)
  ajv.addVocabulary(['components'])
  for (const name of Object.keys(document.components['schemas'] ?? {}))
    ajv.compile({ $ref: `#/components/schemas/${name}`, components: document.components })
})

test('it names no host and no path, so that it is right behind any proxy and prefix', async () => {
  const { servers, ...document } = await readDocument()
  expect(new URL(servers[0]?.url ?? '', 'https://ops.example/a/b/api/openapi.json').href).toBe(
    'https://ops.example/a/b/api/',
  )
  expect(JSON.stringify(document)).not.toMatch(/\/bus\/|localhost/)
})
