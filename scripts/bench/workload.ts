import type { BenchSettings } from './options.ts'
import type { BenchServer } from './server.ts'
import type { CaseResult, Figures } from './results.ts'
import type { Child } from './child.ts'

/** What a workload may use while it runs. */
export interface Bench {
  readonly settings: BenchSettings
  readonly server: BenchServer
  /** Starts a program of `programs/` in a process of its own. It is ended with the run, at the latest. */
  readonly startChild: (program: string) => Child
  /** Aborted when the run is to stop. */
  readonly signal: AbortSignal
  /** Says what goes on, on standard error. */
  readonly progress: (message: string) => void
}

/** One contestant of one case: run in turn with the others, round after round. */
export interface Variant {
  readonly name: string
  /** What it does differently, for the reader of the table. */
  readonly note: string
  /** @throws {@link NotAvailableError} where it cannot run here, which the report says */
  readonly run: (bench: Bench) => Promise<Figures>
}

/** Contestants that do the same work, and are compared within the run. */
export interface Case {
  readonly name: string
  /** How much work it is, for the heading of the table. */
  readonly size?: string | undefined
  readonly variants: readonly Variant[]
  /** The variant that the others are given as a ratio of. */
  readonly reference: string
  /** The variant that is bossbus, where the others are not: the report says which of them are ahead of it. */
  readonly own?: string | undefined
  /** Where the number of rounds is not that of the run. */
  readonly rounds?: number | undefined
  /** Prepares what the rounds share, such as a filled database. Gives what takes it away again. */
  readonly prepare?: ((bench: Bench) => Promise<() => Promise<void>>) | undefined
}

/** A column of the table. Ratios are of the first one that the case measures. */
export interface FigureColumn {
  readonly key: string
  /** With its unit. */
  readonly label: string
  /** @defaultValue `0` */
  readonly decimals?: number | undefined
  /** @defaultValue `false` */
  readonly lowerIsBetter?: boolean | undefined
}

/** A target of the project, checked against what was measured in the same run. */
export interface Target {
  readonly text: string
  readonly bound: { readonly atLeast: number } | { readonly atMost: number }
  /** @defaultValue `'×'` */
  readonly unit?: string | undefined
  /** Undefined where this run did not measure it. */
  readonly measure: (cases: readonly CaseResult[]) => number | undefined
}

/** One question to the bus, in a file of its own. */
export interface Workload {
  /** Its letter in the documentation. */
  readonly letter: string
  readonly name: string
  readonly measures: string
  readonly figures: readonly FigureColumn[]
  readonly cases: (settings: BenchSettings) => readonly Case[]
  readonly targets: readonly Target[]
}
