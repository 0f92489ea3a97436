import type { CaseResult, VariantResult, Figures } from './results.ts'
import { type Bench, type Case, type Variant, type Workload } from './workload.ts'
import { NotAvailableError } from './not-available.ts'

/** Runs the cases of a workload one after the other. A failing contestant is reported, and the others continue. */
export async function runWorkload(workload: Workload, bench: Bench): Promise<CaseResult[]> {
  const results: CaseResult[] = []
  for (const benchCase of workload.cases(bench.settings)) {
    bench.progress(`${workload.letter} ${workload.name}: ${benchCase.name}`)
    results.push(await runCase(workload, benchCase, bench))
  }
  return results
}

/** In the order A B C A B C …, so that a temporary slowdown of the machine affects all of them. */
async function runCase(workload: Workload, benchCase: Case, bench: Bench): Promise<CaseResult> {
  const results = new Map(benchCase.variants.map(({ name, note }) => [name, emptyResult(name, note)]))
  const cleanUp = await prepare(benchCase, bench, results.values())
  try {
    const rounds = benchCase.rounds ?? bench.settings.rounds
    for (let round = 1; round <= rounds; round += 1) {
      for (const variant of benchCase.variants) {
        bench.signal.throwIfAborted()
        const result = results.get(variant.name)
        if (result === undefined || result.notAvailable !== undefined || result.failed !== undefined) continue
        await runVariant(variant, result, bench)
        bench.signal.throwIfAborted()
        bench.progress(`  round ${round} of ${rounds}, ${variant.name}: ${summary(workload, result)}`)
      }
    }
  } finally {
    await cleanUp?.()
  }
  const { name, size, reference, own } = benchCase
  return { name, size, reference, own, variants: [...results.values()] }
}

interface MutableResult extends VariantResult {
  readonly rounds: Figures[]
  notAvailable?: string
  failed?: string
}

/** If the preparation fails, so do all contestants of the case. */
async function prepare(
  benchCase: Case,
  bench: Bench,
  results: Iterable<MutableResult>,
): Promise<(() => Promise<void>) | undefined> {
  try {
    return await benchCase.prepare?.(bench)
  } catch (error) {
    for (const result of results) result.failed = error instanceof Error ? error.message : String(error)
    bench.progress(`  could not be prepared: ${error instanceof Error ? error.message : String(error)}`)
    return undefined
  }
}

function emptyResult(name: string, note: string): MutableResult {
  return { name, note, rounds: [] }
}

async function runVariant(variant: Variant, result: MutableResult, bench: Bench): Promise<void> {
  try {
    result.rounds.push(await variant.run(bench))
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    if (error instanceof NotAvailableError) result.notAvailable = message
    else result.failed = message
  }
}

function summary(workload: Workload, result: MutableResult): string {
  if (result.notAvailable !== undefined) return `not available: ${result.notAvailable}`
  if (result.failed !== undefined) return `FAILED: ${result.failed}`
  const figures = result.rounds.at(-1) ?? {}
  return workload.figures
    .flatMap(({ key, label, decimals = 0 }) => {
      const value = figures[key]
      return value === undefined ? [] : [`${value.toFixed(decimals)} ${label}`]
    })
    .join(', ')
}
