import { parseArgs } from 'node:util'

/** The settings of a benchmark run. */
export interface BenchSettings {
  /** Small sizes and one round: a smoke test in under a minute. */
  readonly quick: boolean
  readonly rounds: number
  /** The names of the workloads to run, in the order of the program. */
  readonly only: readonly string[]
  /** Overrides the number of events of every workload that counts events. */
  readonly eventCount: number | undefined
  /** Overrides the numbers of subscribers. */
  readonly subscriberCounts: readonly number[] | undefined
  /** Overrides the sizes of the payload. */
  readonly payloadBytes: readonly number[] | undefined
  /** The format of the report on standard output. */
  readonly format: 'text' | 'json' | 'markdown'
  /** Whether to write the tables into the documentation. */
  readonly document: boolean
}

/** A workload can be asked for by its letter or by its name. */
interface WorkloadName {
  readonly letter: string
  readonly name: string
}

/** A mistake on the command line, with a one-line message for people. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The lines of `--help`. */
export function usage(workloads: readonly (WorkloadName & { readonly measures: string })[]): string {
  return `npm run bench -- [options]

  --quick                 small sizes and one round: a smoke test in under a minute
  --only <names>          only these workloads, by name or letter, separated by commas
  --rounds <n>            rounds in which the contestants take their turns (3; with --quick 1)
  --events <n>            events of a workload, instead of each workload's own size
  --subscribers <list>    numbers of subscribers, such as 1,3,10
  --payload <list>        bytes of a payload, such as 200,4096
  --json                  the whole report, every round included, as JSON on standard output
  --markdown              the tables as Markdown on standard output
  --document              writes the tables of a full run into docs/benchmarks.md
  --help

Workloads:
${workloads.map(({ letter, name, measures }) => `  ${letter}  ${name.padEnd(12)}${measures}`).join('\n')}
`
}

/**
 * Parses the command line. Returns `'help'` if help is requested.
 *
 * @throws {@link UsageError} for an unknown option or an invalid value
 */
export function parseOptions(
  args: readonly string[],
  known: readonly WorkloadName[],
): BenchSettings | 'help' {
  const values = readArguments(args)
  if (values.help === true) return 'help'
  if (values.json === true && values.markdown === true)
    throw new UsageError('Expected one of --json and --markdown, got both')
  const quick = values.quick ?? false
  const only = workloads(values.only, known)
  if (values.document === true && (quick || only.length < known.length))
    throw new UsageError('Expected --document with a full run, got --quick or --only')
  return Object.freeze({
    quick,
    rounds: integer('rounds', values.rounds, 1, 100) ?? (quick ? 1 : 3),
    only,
    eventCount: integer('events', values.events, 1, 10_000_000),
    subscriberCounts: integers('subscribers', values.subscribers, 1, 100),
    payloadBytes: integers('payload', values.payload, 1, 262_144),
    format: values.json === true ? 'json' : values.markdown === true ? 'markdown' : 'text',
    document: values.document ?? false,
  })
}

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean' },
        only: { type: 'string' },
        rounds: { type: 'string' },
        events: { type: 'string' },
        subscribers: { type: 'string' },
        payload: { type: 'string' },
        json: { type: 'boolean' },
        markdown: { type: 'boolean' },
        document: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values
  } catch (error) {
    // Node appends sentences with advice on `--`.
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split(/\.\s|\n/)
    throw new UsageError(`${message}. Try --help`)
  }
}

function workloads(text: string | undefined, known: readonly WorkloadName[]): readonly string[] {
  const names = text?.split(',').map((name) => name.trim())
  for (const given of names ?? []) {
    if (!known.some(({ letter, name }) => given === letter || given === name)) {
      throw new UsageError(
        `Unknown workload \`${given}\` in --only. Known are: ${known.map(({ name }) => name).join(', ')}`,
      )
    }
  }
  return known
    .filter(({ letter, name }) => names === undefined || names.includes(letter) || names.includes(name))
    .map(({ name }) => name)
}

function integers(
  name: string,
  text: string | undefined,
  min: number,
  max: number,
): readonly number[] | undefined {
  return text?.split(',').map((part) => parseInteger(name, part.trim(), min, max))
}

function integer(name: string, text: string | undefined, min: number, max: number): number | undefined {
  return text === undefined ? undefined : parseInteger(name, text, min, max)
}

function parseInteger(name: string, text: string, min: number, max: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max))
    throw new UsageError(`Expected --${name} to be a whole number from ${min} to ${max}, got \`${text}\``)
  return value
}
