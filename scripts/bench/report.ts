import type { Machine } from './machine.ts'
import type { BenchSettings } from './options.ts'
import { medianOf, ratioOf, type CaseResult, type VariantResult } from './results.ts'
import type { FigureColumn, Target, Workload } from './workload.ts'

/** The complete result of a run, which `--json` prints. */
export interface Report {
  readonly startedAt: string
  readonly durationSeconds: number
  readonly settings: BenchSettings
  readonly machine: Machine
  readonly server: {
    readonly version: string
    readonly description: string
    readonly fileSystem: string | undefined
    readonly settings: Readonly<Record<string, string>>
    readonly warnings: readonly string[]
  }
  readonly workloads: readonly WorkloadReport[]
}

export interface WorkloadReport {
  readonly letter: string
  readonly name: string
  readonly measures: string
  readonly figures: readonly FigureColumn[]
  readonly cases: readonly CaseReport[]
  readonly targets: readonly TargetReport[]
}

export interface CaseReport extends CaseResult {
  readonly variants: readonly VariantReport[]
  /** The contestants whose first figure is better than that of bossbus, if they are not bossbus themselves. */
  readonly aheadOfBossbus: readonly { readonly name: string; readonly ratio: number }[]
}

type VariantReport = CaseResult['variants'][number] & {
  /** The median of each figure over the rounds. */
  readonly medians: Readonly<Record<string, number>>
  /** The first figure of the case as a multiple of the reference's: the median of the rounds' ratios. */
  readonly ofReference: number | undefined
}

export interface TargetReport {
  readonly text: string
  readonly bound: Target['bound']
  readonly unit: string
  readonly measured: number | undefined
  readonly verdict: 'met' | 'missed' | 'not measured'
}

/** Medians, ratios and verdicts of a workload, all computed from its rounds. */
export function reportWorkload(workload: Workload, cases: readonly CaseResult[]): WorkloadReport {
  const { letter, name, measures, figures } = workload
  return {
    letter,
    name,
    measures,
    figures,
    cases: cases.map((result) => reportCase(figures, result)),
    targets: workload.targets.map((target) => judge(target, cases)),
  }
}

function reportCase(figures: readonly FigureColumn[], result: CaseResult): CaseReport {
  const variantNamed = (name: string | undefined): VariantResult | undefined =>
    result.variants.find((variant) => variant.name === name)
  const reference = variantNamed(result.reference)
  const own = variantNamed(result.own)
  const compared = figures.find(({ key }) => medianOf(reference, key) !== undefined)
  return {
    ...result,
    variants: result.variants.map((variant) => ({
      ...variant,
      medians: Object.fromEntries(
        figures.flatMap(({ key }) => {
          const value = medianOf(variant, key)
          return value === undefined ? [] : [[key, value] as const]
        }),
      ),
      ofReference: compared === undefined ? undefined : ratioOf(variant, reference, compared.key),
    })),
    aheadOfBossbus: result.variants.flatMap((variant) => {
      const ratio = compared === undefined ? undefined : ratioOf(variant, own, compared.key)
      const isAhead = ratio !== undefined && (compared?.lowerIsBetter === true ? ratio < 1 : ratio > 1)
      return isAhead ? [{ name: variant.name, ratio }] : []
    }),
  }
}

function judge({ text, bound, unit = '×', measure }: Target, cases: readonly CaseResult[]): TargetReport {
  const measured = measure(cases)
  const met =
    measured === undefined
      ? undefined
      : 'atLeast' in bound
        ? measured >= bound.atLeast
        : measured <= bound.atMost
  return {
    text,
    bound,
    unit,
    measured,
    verdict: met === undefined ? 'not measured' : met ? 'met' : 'missed',
  }
}
