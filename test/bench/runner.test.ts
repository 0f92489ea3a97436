import { describe, expect, test } from 'vitest'
import type { BenchSettings } from '../../scripts/bench/options.ts'
import { renderMarkdown, renderText } from '../../scripts/bench/render.ts'
import { reportWorkload, type WorkloadReport } from '../../scripts/bench/report.ts'
import { findVariant, medianOf, ratioWithin, type Figures } from '../../scripts/bench/results.ts'
import { runWorkload } from '../../scripts/bench/runner.ts'
import { median, percentile } from '../../scripts/bench/statistics.ts'
import { type Bench, type Case, type Target, type Workload } from '../../scripts/bench/workload.ts'
import { NotAvailableError } from '../../scripts/bench/not-available.ts'

const settings: BenchSettings = {
  quick: false,
  rounds: 3,
  only: [],
  eventCount: undefined,
  subscriberCounts: undefined,
  payloadBytes: undefined,
  format: 'text',
  document: false,
}

function fakeBench(signal = new AbortController().signal): Bench {
  return {
    settings,
    // No contestant of these tests touches a server or a process.
    server: undefined as unknown as Bench['server'],
    startChild: () => {
      throw new Error('no process here')
    },
    signal,
    progress: () => {},
  }
}

function workloadOf(
  variants: Record<string, () => Figures>,
  targets: Target[] = [],
  more: Partial<Case> = {},
): Workload {
  return {
    letter: 'x',
    name: 'example',
    measures: 'examples',
    figures: [{ key: 'rate', label: 'examples/s' }],
    targets,
    cases: () => [
      {
        name: 'only',
        reference: 'ours',
        own: 'ours',
        variants: Object.entries(variants).map(([name, run]) => ({
          name,
          note: `${name}'s note`,
          run: async () => run(),
        })),
        ...more,
      },
    ],
  }
}

async function report(workload: Workload): Promise<WorkloadReport> {
  return reportWorkload(workload, await runWorkload(workload, fakeBench()))
}

/** Gives the next of the figures at each call. */
function rates(...values: number[]): () => Figures {
  let next = 0
  return () => {
    next += 1
    return { rate: values[next - 1] ?? Number.NaN }
  }
}

describe('a workload', () => {
  test('runs its contestants in turn, round after round', async () => {
    const turns: string[] = []
    const turn = (name: string) => (): Figures => {
      turns.push(name)
      return { rate: 1 }
    }
    await runWorkload(workloadOf({ ours: turn('a'), theirs: turn('b'), floor: turn('c') }), fakeBench())
    expect(turns.join('')).toBe('abcabcabc')
  })

  test('reports medians, and ratios as the median of the ratios within each round', async () => {
    // The machine is ten times as fast in the third round: the ratio of the medians would be 2, not 3.
    const result = await report(workloadOf({ ours: rates(10, 20, 100), theirs: rates(30, 40, 500) }))
    const [first] = result.cases
    expect(first?.variants.map(({ medians }) => medians)).toEqual([{ rate: 20 }, { rate: 40 }])
    expect(first?.variants.map(({ ofReference }) => ofReference)).toEqual([1, 3])
  })

  test('goes on without a contestant that fails or is not available, and shows both', async () => {
    const result = await report(
      workloadOf({
        broken: () => {
          throw new Error('it broke')
        },
        absent: () => {
          throw new NotAvailableError('no Redis answers')
        },
        ours: rates(1, 2, 3),
      }),
    )
    expect(result.cases[0]?.variants).toMatchObject([
      { name: 'broken', rounds: [], failed: 'it broke' },
      { name: 'absent', rounds: [], notAvailable: 'no Redis answers' },
      { name: 'ours', medians: { rate: 2 } },
    ])
    for (const text of [renderText(result), renderMarkdown(result)]) {
      expect(text).toContain('broken FAILED: it broke')
      expect(text).toContain('absent is not available here: no Redis answers')
    }
  })

  test('fails with all its contestants when it cannot be prepared', async () => {
    const prepare = async (): Promise<never> => {
      throw new Error('the disk is full')
    }
    const result = await report(workloadOf({ ours: rates(1, 2, 3) }, [], { prepare }))
    expect(result.cases[0]?.variants).toMatchObject([
      { name: 'ours', rounds: [], failed: 'the disk is full' },
    ])
  })

  test('judges its targets by what was measured, and hides none', async () => {
    const ratio = (other: string) => (cases: Parameters<Target['measure']>[0]) =>
      ratioWithin(cases, 'only', 'rate', 'ours', other)
    const result = await report(
      workloadOf({ ours: rates(12, 12, 12), theirs: rates(10, 10, 10) }, [
        { text: 'reached', bound: { atLeast: 1.2 }, measure: ratio('theirs') },
        { text: 'not reached', bound: { atLeast: 1.3 }, measure: ratio('theirs') },
        {
          text: 'stayed below',
          bound: { atMost: 12 },
          unit: '/s',
          measure: (cases) => medianOf(findVariant(cases, 'only', 'ours'), 'rate'),
        },
        { text: 'not run', bound: { atMost: 1 }, measure: ratio('nobody') },
      ]),
    )
    expect(result.targets.map(({ text, measured, verdict }) => [text, measured, verdict])).toEqual([
      ['reached', 1.2, 'met'],
      ['not reached', 1.2, 'missed'],
      ['stayed below', 12, 'met'],
      ['not run', undefined, 'not measured'],
    ])
    expect(renderText(result)).toMatch(/not reached +≥ 1\.3 × +1\.20 × +missed/)
    expect(renderMarkdown(result)).toContain('| not reached | ≥ 1.3 × | 1.20 × | missed |')
  })

  test('names the contestants that are ahead of bossbus', async () => {
    const result = await report(
      workloadOf({ ours: rates(10, 10, 10), theirs: rates(15, 15, 15), others: rates(5, 5, 5) }),
    )
    expect(result.cases[0]?.aheadOfBossbus).toEqual([{ name: 'theirs', ratio: 1.5 }])
    expect(renderMarkdown(result)).toContain('- ahead of bossbus: theirs (1.50 of its figure)')
  })

  test('stops when it is interrupted, and takes away what it prepared', async () => {
    const interruption = new AbortController()
    let cleanedUp = false
    const workload = workloadOf(
      {
        ours: () => {
          interruption.abort()
          return { rate: 1 }
        },
      },
      [],
      {
        prepare: async () => async () => {
          cleanedUp = true
        },
      },
    )
    await expect(runWorkload(workload, fakeBench(interruption.signal))).rejects.toThrow('aborted')
    expect(cleanedUp).toBe(true)
  })
})

test('a median is the middle value, a percentile the value that so many do not exceed', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 2, 3])).toBe(2.5)
  expect([50, 99, 100].map((p) => percentile([1, 2, 3, 4], p))).toEqual([2, 4, 4])
  expect(percentile([], 50)).toBeNaN()
})
