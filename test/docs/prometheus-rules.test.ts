import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { metricsIn, readRules, rulesFile, type AlertRule } from '../support/alert-rules.ts'
import { startBusyBus } from '../support/busy-bus.ts'
import { parsePrometheusText } from '../support/prometheus-text.ts'
import { promtoolPath, runPromtool } from '../support/promtool.ts'

const rules = await readRules()

/** Series by their names and labels: values in the notation of promtool, a minute apart. */
type Series = Readonly<Record<string, string>>

interface Case {
  /** When it fires: and one minute before it does not. */
  readonly at: number
  readonly fires: Series
  readonly quiet: Series
  readonly labels?: Readonly<Record<string, string>>
  /** What its texts say in place of `$value`, as they format it. */
  readonly value?: string
}

const subscription = { messaging_destination_subscription_name: 'open-case' }
const of = (name: string, instance = 'a'): string =>
  `${name}{messaging_destination_subscription_name="open-case",job="pay",instance="${instance}"}`
const process = { job: 'pay', instance: 'a' }
const ofProcess = (name: string): string => `${name}{job="pay",instance="a"}`

/** Several processes tell the same of the database: the alert is one. */
const cases: Readonly<Record<string, Case>> = {
  BossbusAbsent: {
    ...{ at: 5, fires: { other: '1x60' }, quiet: { 'bossbus_build_info{version="1"}': '1x60' } },
  },
  BossbusDatabaseDown: {
    ...{ at: 2, fires: { [ofProcess('bossbus_database_up')]: '0x60' }, labels: process },
    quiet: { [ofProcess('bossbus_database_up')]: '1 0 1 0 1 0 1x60' },
  },
  BossbusBehind: {
    ...{ at: 5, labels: subscription, value: '6m 40s' },
    fires: { [of('bossbus_lag_seconds')]: '400x60', [of('bossbus_lag_seconds', 'b')]: '390x60' },
    // It catches up.
    quiet: { [of('bossbus_lag_seconds')]: '400 380 360 340 290x60' },
  },
  BossbusRelayBehind: {
    ...{ at: 2, fires: { [ofProcess('bossbus_relay_lag_seconds')]: '90x60' }, value: '1m 30s' },
    quiet: { [ofProcess('bossbus_relay_lag_seconds')]: '59x60' },
  },
  BossbusRelayFailing: {
    ...{ at: 5, fires: { [ofProcess('bossbus_relay_failing')]: '1x60' }, labels: process },
    quiet: { [ofProcess('bossbus_relay_failing')]: '1x3 0x60' },
  },
  BossbusUnserved: {
    ...{ at: 10, fires: { [of('bossbus_unserved')]: '1x60' }, labels: subscription },
    // A deployment.
    quiet: { [of('bossbus_unserved')]: '1x8 0x60' },
  },
  BossbusBreakerOpen: {
    ...{ at: 5, fires: { [of('bossbus_breaker_open')]: '1x60' }, labels: subscription },
    quiet: { [of('bossbus_breaker_open')]: '1x3 0x60' },
  },
  BossbusPausedTooLong: {
    ...{
      at: 5,
      fires: { [of('bossbus_paused_lag_seconds')]: '18000x60' },
      labels: subscription,
      value: '5h 0m 0s',
    },
    quiet: { [of('bossbus_paused_lag_seconds')]: '3600x60', [of('bossbus_paused')]: '1x60' },
  },
  BossbusDeadLettersGrowing: {
    ...{ at: 1, labels: subscription, value: '2' },
    fires: { [of('bossbus_dead_total')]: '0 1 1x60', [of('bossbus_dead_total', 'b')]: '0 1 1x60' },
    // They are there since long, and one process began anew.
    quiet: { [of('bossbus_dead_total')]: '5x60', [of('bossbus_dead_total', 'b')]: '5 0x60' },
  },
  BossbusBlockedKeys: {
    ...{ at: 15, fires: { [of('bossbus_blocked_keys')]: '3x60' }, labels: subscription, value: '3' },
    quiet: { [of('bossbus_blocked_keys')]: '3x10 0x60' },
  },
  BossbusOperationStopped: {
    ...{ at: 10, fires: { [ofProcess('bossbus_operations_stopped')]: '2x60' }, value: '2' },
    quiet: { [ofProcess('bossbus_operations_stopped')]: '0x60' },
  },
  BossbusListenDown: {
    ...{ at: 10, fires: { [ofProcess('bossbus_listen_up')]: '0x60' }, labels: process },
    quiet: { [ofProcess('bossbus_listen_up')]: '0x5 1x60' },
  },
  BossbusInstanceLost: {
    ...{ at: 1, fires: { [ofProcess('bossbus_instances_lost')]: '1x60' }, value: '1' },
    quiet: { [ofProcess('bossbus_instances_lost')]: '0x60' },
  },
  BossbusCanaryFailing: {
    ...{ at: 2, fires: { [`bossbus_finding{code="canary-failing"}`]: '1x60' } },
    quiet: {
      'bossbus_finding{code="canary-failing"}': '0x60',
      'bossbus_finding{code="circuit-open"}': '1x60',
    },
  },
  BossbusPartitionsMissing: {
    ...{ at: 60, fires: { 'bossbus_partition_horizon_seconds{table="events"}': '518400x120' } },
    ...{ labels: { table: 'events' }, value: '6d 0h 0m 0s' },
    quiet: { 'bossbus_partition_horizon_seconds{table="events"}': '1209600x120' },
  },
  BossbusDefaultPartitionUsed: {
    ...{ at: 180, fires: { 'bossbus_default_partition_rows{table="events"}': '5x240' } },
    labels: { table: 'events' },
    // Retention makes a partition of them within the hour.
    quiet: { 'bossbus_default_partition_rows{table="events"}': '5x60 0x240' },
  },
  BossbusOldTransaction: {
    ...{ at: 5, fires: { [ofProcess('bossbus_oldest_prepared_transaction_age_seconds')]: '3600x60' } },
    value: '1h 0m 0s',
    quiet: { [ofProcess('bossbus_oldest_transaction_age_seconds')]: '1700x60' },
  },
  BossbusReplicationSlotInactive: {
    ...{ at: 15, fires: { [ofProcess('bossbus_replication_slot_retained_bytes')]: '21474836480x60' } },
    value: '20Gi',
    quiet: { [ofProcess('bossbus_replication_slot_retained_bytes')]: '1000000x60' },
  },
  BossbusMetricsMissing: {
    ...{ at: 15, fires: { 'bossbus_metrics_section_up{section="depth",instance="a"}': '0x60' } },
    labels: { section: 'depth' },
    // One process may not read it, another one may.
    quiet: {
      'bossbus_metrics_section_up{section="depth",instance="a"}': '0x60',
      'bossbus_metrics_section_up{section="depth",instance="b"}': '1x60',
    },
  },
}

/** A text of a rule as Prometheus renders it. */
function rendered(text: string, { labels = {}, value = '' }: Case): string {
  return text
    .replaceAll(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => labels[name] ?? '')
    .replaceAll(/\{\{ \$value(?: \| \w+)? \}\}/g, value)
}

/** The tests of promtool for an alert. JSON is YAML. */
function testsOf({ alert, severity, ...texts }: AlertRule, given: Case): object[] {
  const { at, fires, quiet, labels = {} } = given
  const { summary, description, remedy } = texts
  const annotations = Object.entries({ summary, description, remedy }).map(([key, text]) => [
    key,
    rendered(text, given),
  ])
  const fired = {
    exp_labels: { severity, ...labels },
    exp_annotations: Object.fromEntries(annotations) as object,
  }
  const evaluated = (minute: number, expected: readonly object[]): object => ({
    ...{ eval_time: `${minute}m`, alertname: alert, exp_alerts: expected },
  })
  const withSeries = (series: Series, expected: readonly object[]): object => ({
    name: alert,
    interval: '1m',
    input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
    alert_rule_test: expected,
  })
  return [
    withSeries(fires, [evaluated(at - 1, []), evaluated(at, [fired])]),
    withSeries(
      quiet,
      [1, at, at + 1, at + 20].map((minute) => evaluated(minute, [])),
    ),
  ]
}

test('every alert says what it means and what to do, and leads nowhere else', () => {
  expect(rules.length).toBeGreaterThan(10)
  for (const { alert, severity, ...texts } of rules) {
    expect(alert).toMatch(/^Bossbus[A-Z][A-Za-z]+$/)
    expect(severity).toMatch(/^(?:critical|warning)$/)
    for (const text of [texts.summary, texts.description, texts.remedy]) {
      expect(text.length).toBeGreaterThan(15)
      expect(text).not.toMatch(/https?:|\]\(/)
    }
  }
  expect(Object.keys(cases)).toEqual(rules.map(({ alert }) => alert))
})

test('every metric of the alerts is one of the metrics of a bus', async () => {
  const { bus } = await startBusyBus()
  const names = parsePrometheusText(await bus.metrics()).map(({ name }) => name)
  const used = rules.flatMap(({ expr }) => metricsIn(expr))
  expect(new Set(used).size).toBeGreaterThan(15)
  expect(used.filter((name) => !names.includes(name))).toEqual([])
})

describe.skipIf(promtoolPath === undefined)('promtool', () => {
  test('accepts the alerts', async () => {
    const checked = await runPromtool(['check', 'rules', '--lint-fatal', fileURLToPath(rulesFile)])
    expect(checked).toMatchObject({ code: 0 })
    expect(checked.output).toContain(`${rules.length} rules found`)
  })

  test.each(rules.map((rule) => [rule.alert, rule] as const))(
    '%s fires when it should, and not before or otherwise',
    async (alert, rule) => {
      const given = cases[alert]
      if (given === undefined) throw new Error(`${alert} has no case`)
      const folder = await mkdtemp(join(tmpdir(), 'bossbus-rules-'))
      onTestFinished(async () => rm(folder, { recursive: true }))
      const file = join(folder, 'tests.yml')
      const tests = {
        rule_files: [fileURLToPath(rulesFile)],
        evaluation_interval: '1m',
        tests: testsOf(rule, given),
      }
      await writeFile(file, JSON.stringify(tests))
      expect(await runPromtool(['test', 'rules', file])).toMatchObject({ code: 0 })
    },
  )
})
