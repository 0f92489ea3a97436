import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { apiRoutes } from '../../src/http/routes/all.ts'

test('docs/guide/http.md lists every route, and none that there is not', async () => {
  const page = await readFile(new URL('../../docs/guide/http.md', import.meta.url), 'utf8')
  const tables = page.slice(page.indexOf('## Routes'), page.indexOf('## Errors'))
  const listed = [...tables.matchAll(/`((?:GET|POST) \/[^`?]*)/g)].map(([, route = '']) => route)
  const all = apiRoutes.map(({ method, url }) => `${method} ${url}`)
  expect([...new Set(listed)].toSorted()).toEqual(all.toSorted())
})
