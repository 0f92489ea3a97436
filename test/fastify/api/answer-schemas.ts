import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import type { ApiRoute } from '../../../src/http/route.ts'
import { componentSchemas } from '../../../src/http/schemas/components.ts'

/** Schemas without the freedom to have more properties than they describe: what an answer has is to be described. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (schema === null || typeof schema !== 'object') return schema
  const parts = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, closed(value)]))
  return 'properties' in parts && !('additionalProperties' in parts)
    ? { ...parts, additionalProperties: false }
    : parts
}

const components = { schemas: closed(componentSchemas) }

/** What is wrong with an answer, by the schema that its route declares; nothing if it fits. */
export function problemsOf(route: ApiRoute, answer: unknown): readonly string[] {
  const ajv = new Ajv2020({ allErrors: true, strict: false })
  addFormats.default(ajv)
  const check = ajv.compile({ ...(closed(route.answer.json) as object), components })
  if (check(answer)) return []
  return (check.errors ?? []).map(
    ({ instancePath, message = '', params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
  )
}
