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

test('docs/guide/http.md says the body of every route that takes one', async () => {
  const page = await readFile(new URL('../../docs/guide/http.md', import.meta.url), 'utf8')
  const table = page.slice(page.indexOf('| route | body |'), page.indexOf('What goes on by itself'))
  const listed = table
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) => {
      const [, routes = '', body = ''] = line.split('|')
      return routes.split(',').map((route) => `${route.trim()}: ${body.trim()}`)
    })
  const all = apiRoutes.flatMap(({ method, url, body = {} }) => {
    const fields = Object.entries(body).map(([name, field]) => `\`${name}${field.isRequired ? '' : '?'}\``)
    return method === 'POST' && fields.length > 0 ? [`\`${url}\`: ${fields.join(', ')}`] : []
  })
  expect(listed.toSorted()).toEqual(all.toSorted())
})
