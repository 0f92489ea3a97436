import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { metricsIn } from '../support/alert-rules.ts'
import { startBusyBus } from '../support/busy-bus.ts'
import { expectLayout, type PlacedPanel } from '../support/grafana.ts'
import { parsePrometheusText } from '../support/prometheus-text.ts'
import { promtoolPath, runPromtool } from '../support/promtool.ts'

interface Panel extends PlacedPanel {
  readonly targets?: readonly { readonly expr: string; readonly refId: string }[]
}

const file = new URL('../../docs/grafana-prometheus.json', import.meta.url)
const dashboard = JSON.parse(await readFile(file, 'utf8')) as {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition?: string }[] }
}

const variables = dashboard.templating.list.map(({ name }) => name)

/** Expressions, with what Grafana puts in place of its variables. */
const expressions = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr }) => ({
    title,
    expr: expr
      .replaceAll('$__rate_interval', '5m')
      .replaceAll(/\$(\w+)/g, (found, name: string) => (variables.includes(name) ? '.*' : found)),
  })),
)

test(
  'every metric of the dashboard is one of the metrics of a bus, and each of those is shown',
  {
    timeout: 90_000,
  },
  async () => {
    const { bus } = await startBusyBus({ tenants: 5 })
    const families = parsePrometheusText(await bus.metrics())
    const names = families.map(({ name }) => name)
    const series = new Set(families.flatMap(({ samples }) => samples.map(({ name }) => name)))
    const definitions = dashboard.templating.list.map(({ definition = '' }) => definition)
    const used = new Set([...expressions.map(({ expr }) => expr), ...definitions].flatMap(metricsIn))
    expect([...used].filter((name) => !series.has(name))).toEqual([])
    const shown = names.filter((name) => used.has(name) || used.has(`${name}_bucket`))
    // Whether a count is only a lower bound is for people who ask.
    expect(names.filter((name) => !shown.includes(name))).toEqual(['bossbus_depth_partial'])
  },
)

test('panels have ids of their own, do not overlap, and use only the variables of the dashboard', () => {
  const { panels } = dashboard
  expectLayout(panels)
  expect(variables).toEqual(['datasource', 'job', 'subscription'])
  for (const { expr } of expressions) expect(expr).not.toContain('$')
  for (const { targets = [] } of panels)
    expect(new Set(targets.map(({ refId }) => refId)).size).toBe(targets.length)
})

test.skipIf(promtoolPath === undefined)('promtool accepts each query of the dashboard', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-dashboard-'))
  onTestFinished(async () => rm(folder, { recursive: true }))
  const name = join(folder, 'rules.yml')
  const check = async (queries: readonly string[]) => {
    const rules = queries.map((expr, n) => ({ record: `query:${n}`, expr }))
    await writeFile(name, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
    return runPromtool(['check', 'rules', name])
  }
  const queries = expressions.map(({ expr }) => expr)
  expect(await check(queries)).toMatchObject({ code: 0 })
  expect(await check([...queries, 'sum(rate(x))'])).toMatchObject({ code: 1 })
})
