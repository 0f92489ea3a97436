import { median } from './statistics.ts'

/** All measurements of one contestant of a case. */
export interface VariantResult {
  readonly name: string
  readonly note: string
  /** One entry per round, in order. */
  readonly rounds: readonly Figures[]
  /** The reason if it did not run. */
  readonly notAvailable?: string | undefined
  /** The first error if a round failed. */
  readonly failed?: string | undefined
}

export interface CaseResult {
  readonly name: string
  readonly size?: string | undefined
  readonly reference: string
  readonly own?: string | undefined
  readonly variants: readonly VariantResult[]
}

/** The median over the rounds. Undefined without figures. */
export function medianOf(result: VariantResult | undefined, figure: string): number | undefined {
  const values = valuesOf(result, figure).filter((value) => value !== undefined)
  return values.length === 0 ? undefined : median(values)
}

/**
 * The median of the rounds' ratios. Each round compares measurements made side by side, so a machine that slows down
 * during the run does not affect the ratio.
 */
export function ratioOf(
  result: VariantResult | undefined,
  reference: VariantResult | undefined,
  figure: string,
): number | undefined {
  const references = valuesOf(reference, figure)
  const ratios = valuesOf(result, figure).flatMap((value, round) => {
    const other = references[round]
    return value === undefined || other === undefined || other === 0 ? [] : [value / other]
  })
  return ratios.length === 0 ? undefined : median(ratios)
}

function valuesOf(result: VariantResult | undefined, figure: string): (number | undefined)[] {
  return result?.rounds.map((figures) => figures[figure]) ?? []
}

/** The contestant with this name in the case with this name. */
export function findVariant(
  cases: readonly CaseResult[],
  caseName: string,
  variantName: string,
): VariantResult | undefined {
  return cases.find(({ name }) => name === caseName)?.variants.find(({ name }) => name === variantName)
}

/** The ratio of two contestants in one case. */
export function ratioWithin(
  cases: readonly CaseResult[],
  caseName: string,
  figure: string,
  variantName: string,
  referenceName: string,
): number | undefined {
  return ratioOf(
    findVariant(cases, caseName, variantName),
    findVariant(cases, caseName, referenceName),
    figure,
  )
}

/** The measurements of one run of one contestant, by the key of the figure. */
export type Figures = Readonly<Record<string, number>>
