import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { instruments } from '../../src/telemetry/instruments.ts'
import { bounds } from '../../src/telemetry/prometheus/bounds.ts'
import { gauges } from '../../src/telemetry/prometheus/gauges.ts'
import { metricName } from '../../src/telemetry/prometheus/names.ts'
import { metricsIn, readRules } from '../support/alert-rules.ts'

const page = await readFile(new URL('../../docs/guide/metrics.md', import.meta.url), 'utf8')

/** The cells of the rows of a section's tables. */
function rowsOf(heading: string): string[][] {
  const section = page.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? ''
  return section
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| metric') && !line.startsWith('| alert'))
    .map((line) => line.split(' | ').map((cell) => cell.replaceAll(/^\| ?| ?\|$|`/g, '').trim()))
}

/** How the page shortens the attributes of OpenTelemetry. */
const shortNames: Readonly<Record<string, string>> = {
  operationName: 'operation',
  operationType: 'operation type',
  destination: 'type',
  errorType: 'error',
}

test('docs/guide/metrics.md has every metric, with its kind and labels, and no other', () => {
  const ofProcess = Object.values(instruments).map((instrument) => [
    metricName(instrument),
    instrument.kind,
    instrument.attributes.map((name) => shortNames[name] ?? name).join(', '),
  ])
  const read = Object.values(gauges).map((gauge) => [
    gauge.name,
    'kind' in gauge ? gauge.kind : 'gauge',
    gauge.labels.join(', '),
  ])
  const documented = [...rowsOf('Of this process'), ...rowsOf('Of the database')]
  expect(documented.map((cells) => cells.slice(0, 3))).toEqual([...ofProcess, ...read])
  for (const [, , , meaning = ''] of documented) expect(meaning).toMatch(/^[A-Z].{5,}\.$/)
})

test('docs/guide/metrics.md lists the alerts of the file, with their severities', async () => {
  const rules = await readRules()
  expect(rowsOf('Alerts').map((cells) => cells.slice(0, 2))).toEqual(
    rules.map(({ alert, severity }) => [alert, severity]),
  )
})

test('docs/guide/metrics.md says the bounds of the code, and its queries use metrics that there are', () => {
  const numbers = rowsOf('How many series').flatMap(([, most = '']) =>
    [...most.replaceAll(',', '').matchAll(/\b\d+\b/g)].map(Number),
  )
  const { types, subscriptions, errorTypes, counterSeries, histogramSeries, services, versions } = bounds
  expect(numbers).toEqual([
    ...[types, subscriptions, errorTypes, counterSeries, histogramSeries, services, versions, 100],
  ])
  const names = new Set([
    ...Object.values(instruments).map(metricName),
    ...Object.values(gauges).map(({ name }) => name),
  ])
  const queries = [...page.matchAll(/```promql\n([^]*?)```/g)].flatMap(([, text = '']) => metricsIn(text))
  expect(queries.length).toBeGreaterThan(2)
  expect(queries.filter((name) => !names.has(name.replace(/_bucket$/, '')))).toEqual([])
})
