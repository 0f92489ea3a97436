import type { BenchSettings } from './options.ts'
import type { BenchServer } from './server.ts'
import type { CaseResult, Figures } from './results.ts'
import type { Child } from './child.ts'

/** What a workload may use during its run. */
export interface Bench {
  readonly settings: BenchSettings
  readonly server: BenchServer
  /** Starts a program of `programs/` in a process of its own, which ends with the run at the latest. */
  readonly startChild: (program: string) => Child
  /** Aborted when the run must stop. */
  readonly signal: AbortSignal
  /** Reports progress on standard error. */
  readonly progress: (message: string) => void
}

/** One contestant of one case: it takes turns with the others, round after round. */
export interface Variant {
  readonly name: string
  /** What it does differently, for the reader of the table. */
  readonly note: string
  /** @throws {@link NotAvailableError} if it cannot run here; the report gives the reason */
  readonly run: (bench: Bench) => Promise<Figures>
}

/** Contestants that do the same work, and are compared within the run. */
export interface Case {
  readonly name: string
  /** The amount of work, for the heading of the table. */
  readonly size?: string | undefined
  readonly variants: readonly Variant[]
  /** The variant that the ratios of the others refer to. */
  readonly reference: string
  /** The variant that is bossbus, if the others are not: the report lists those that are ahead of it. */
  readonly own?: string | undefined
  /** The number of rounds, if it differs from that of the run. */
  readonly rounds?: number | undefined
  /** Prepares what the rounds share, such as a filled database. Resolves to a function that removes it. */
  readonly prepare?: ((bench: Bench) => Promise<() => Promise<void>>) | undefined
}

/** A column of the table. Ratios refer to the first column that the case measures. */
export interface FigureColumn {
  readonly key: string
  /** Includes the unit. */
  readonly label: string
  /** @defaultValue `0` */
  readonly decimals?: number | undefined
  /** @defaultValue `false` */
  readonly lowerIsBetter?: boolean | undefined
}

/** A target of the project, checked against the measurements of the same run. */
export interface Target {
  readonly text: string
  readonly bound: { readonly atLeast: number } | { readonly atMost: number }
  /** @defaultValue `'×'` */
  readonly unit?: string | undefined
  /** Undefined if this run did not measure it. */
  readonly measure: (cases: readonly CaseResult[]) => number | undefined
}

/** One question about the bus, in a file of its own. */
export interface Workload {
  /** Its letter in the documentation. */
  readonly letter: string
  readonly name: string
  readonly measures: string
  readonly figures: readonly FigureColumn[]
  readonly cases: (settings: BenchSettings) => readonly Case[]
  readonly targets: readonly Target[]
}
