// @module-tag slow
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, inject, test } from 'vitest'

const program = fileURLToPath(new URL('../../scripts/bench/main.ts', import.meta.url))

interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

async function runBench(args: readonly string[]): Promise<Finished> {
  return new Promise((resolve) => {
    // On the server of the tests: it is the program that is tested, not the speed.
    const env = { ...process.env, DATABASE_URL: inject('serverUrl') }
    const child = execFile(
      process.execPath,
      [program, ...args],
      { env, maxBuffer: 2 ** 24 },
      (_, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    )
  })
}

interface ReportShape {
  readonly workloads: {
    readonly name: string
    readonly cases: {
      readonly variants: {
        readonly name: string
        readonly failed?: string
        readonly notAvailable?: string
        readonly rounds: Readonly<Record<string, number>>[]
      }[]
    }[]
    readonly targets: { readonly verdict: string }[]
  }[]
}

test('the benchmark runs every contestant and prints the whole report as JSON', async () => {
  const { code, stdout, stderr } = await runBench([
    '--quick',
    '--json',
    '--only',
    'throughput,modes',
    '--events',
    '100',
    '--subscribers',
    '2',
  ])
  expect({ code, stderr }).toMatchObject({ code: 0 })
  const report = JSON.parse(stdout) as ReportShape
  expect(report).toMatchObject({
    settings: { quick: true, rounds: 1, only: ['throughput', 'modes'], eventCount: 100 },
    machine: {
      node: process.versions.node,
      packages: { 'pg-boss': expect.stringMatching(/^\d/) as string },
    },
    server: { version: expect.stringMatching(/^\d/) as string },
    workloads: [{ name: 'throughput' }, { name: 'modes' }],
  })
  const variants = report.workloads.flatMap(({ cases }) => cases.flatMap(({ variants }) => variants))
  expect(variants.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['bossbus', 'pg-boss', 'graphile-worker', 'BullMQ', 'plain SQL', 'default']),
  )
  expect(variants.filter(({ failed }) => failed !== undefined)).toEqual([])
  const run = variants.filter(({ notAvailable }) => notAvailable === undefined)
  expect(run.map(({ name }) => name)).toEqual(expect.arrayContaining(['bossbus', 'pg-boss', 'plain SQL']))
  expect(run.filter(({ rounds }) => rounds.length !== 1)).toEqual([])
  expect(run.filter(({ rounds }) => !((rounds[0]?.['eventsPerSecond'] ?? 0) > 0))).toEqual([])
  expect(report.workloads[0]?.targets.length).toBeGreaterThan(0)
  // Progress is for people, and goes elsewhere.
  expect(stderr).toContain('round 1 of 1, bossbus')
})

test('a mistake on the command line is one line on standard error, and nothing runs', async () => {
  const { code, stdout, stderr } = await runBench(['--only', 'speed'])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^Unknown workload `speed` in --only\. Known are: throughput, .*\n$/)
})
