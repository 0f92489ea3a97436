import { resolve } from 'node:path'
import type { CatalogueFinding } from '../../events/compatibility/catalogue-comparison.ts'
import type { KnownType, TypeDescription } from '../../events/contracts/catalogue-description.ts'
import type { SampledVersion } from '../../operations/history-sample.ts'
import { defineCommand, type CommandContext } from '../command/command.ts'
import type { Config } from '../command/config.ts'
import { integer, text, texts } from '../command/flags.ts'
import { counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'

/** What was compared, and the findings. */
interface Report {
  readonly source: string
  readonly against: string
  readonly types: number
  readonly compared: number
  readonly sampled: readonly SampledVersion[]
  readonly findings: readonly CatalogueFinding[]
}

export const catalogCheck = defineCommand({
  examples: [
    ['catalog check', 'before a deployment, against the database'],
    ['catalog check --against catalogue.json', 'against a file, without a database'],
  ],
  notes: [
    `Compares the events of the configuration with those that this service and others have recorded in bus.catalogue, and tries
them on a sample of the log: each event is upcast to the newest shape and validated. Tells paths and reasons, never values.`,
  ],
  flags: {
    sample: integer('<n>', 'So many of the newest, the oldest and those between of each type; 0: none', {
      ...{ min: 0, max: 10_000, default: 100 },
    }),
    against: text(
      '<file>',
      'Compares with a catalogue that `bossbus catalog export` wrote, without a database',
    ),
    accept: texts('<what>', 'Lets a finding pass, as <type>:<rule>, such as payment.paid:sources-narrowed'),
  },
  isLong: true,
  async run({ flags, config, bus, database, output, inTime, cwd }) {
    const { sample, against } = flags
    const accepted = new Set(flags.accept)
    const given = await config()
    const report = accept(
      against === undefined
        ? await checkDatabase({ bus, database, output, inTime }, given, sample)
        : await checkFile(given, against, resolve(cwd, against)),
      accepted,
    )
    const isBroken = report.findings.some(({ severity }) => severity === 'breaking')
    output.object({ ok: !isBroken, ...report }, () => printReport(report, output))
    return isBroken ? 1 : 0
  },
})

async function checkFile(config: Config, name: string, file: string): Promise<Report> {
  const [source, events] = [config.source(), await config.events()]
  const [{ describeCatalogue }, { compareCatalogues }, { readCatalogueFile }] = await Promise.all([
    import('../../events/contracts/catalogue-description.ts'),
    import('../../events/compatibility/catalogue-comparison.ts'),
    import('../views/catalogue-file.ts'),
  ])
  const [current, known] = [await describeCatalogue(events), await readCatalogueFile(file, name)]
  const findings = compareCatalogues(source, current, known)
  return { source, against: name, types: current.length, compared: known.length, sampled: [], findings }
}

async function checkDatabase(
  { bus, database: open, output, inTime }: Pick<CommandContext, 'bus' | 'database' | 'output' | 'inTime'>,
  config: Config,
  sampleSize: number,
): Promise<Report> {
  const [source, events] = [config.source(), await config.events()]
  const [{ describeCatalogue }, { compareCatalogues }, { checkHistory, findNeeds }, { readCatalogue }] =
    await Promise.all([
      import('../../events/contracts/catalogue-description.ts'),
      import('../../events/compatibility/catalogue-comparison.ts'),
      import('../../operations/history-sample.ts'),
      import('../../operations/stored-catalogue.ts'),
    ])
  // Checks the schema.
  await inTime(bus())
  const database = await open()
  const [current, known] = await Promise.all([describeCatalogue(events), inTime(readCatalogue(database))])
  const removed = removedTypes(source, current, known)
  const needs = removed.length === 0 ? new Map() : await inTime(findNeeds(database, removed))
  const compared = compareCatalogues(source, current, known, needs)
  const { versions, findings } =
    sampleSize === 0
      ? { versions: [], findings: [] }
      : await output.during('Trying stored events', checkHistory(database, events, known, sampleSize))
  return {
    ...{ source, against: 'the database', types: current.length, compared: known.length, sampled: versions },
    findings: [...compared, ...findings],
  }
}

function removedTypes(
  source: string,
  current: readonly TypeDescription[],
  known: readonly KnownType[],
): readonly string[] {
  const names = new Set(current.map(({ type }) => type))
  return [
    ...new Set(known.filter((row) => row.service === source && !names.has(row.type)).map(({ type }) => type)),
  ]
}

function accept(report: Report, accepted: ReadonlySet<string>): Report {
  const findings = report.findings.map((finding): CatalogueFinding => {
    const isAccepted = finding.severity === 'breaking' && accepted.has(`${finding.type}:${finding.rule}`)
    return isAccepted ? { ...finding, severity: 'note', what: `Accepted: ${finding.what}` } : finding
  })
  return { ...report, findings }
}

function printReport(
  { source, against, types, compared, sampled, findings }: Report,
  { line }: Output,
): void {
  line(
    `${source}: ${counted(types, 'type')}, compared with ${counted(compared, 'recorded version')} of ${against}`,
  )
  for (const { type, version, sampledCount, unfitCount } of sampled)
    line(
      `  ${type} version ${version}: ${counted(sampledCount, 'stored event')} tried, ${unfitCount} ${unfitCount === 1 ? 'does' : 'do'} not fit`,
    )
  for (const severity of ['breaking', 'warning', 'note'] as const) {
    for (const finding of findings.filter((one) => one.severity === severity)) {
      line()
      line(
        `${severity.toUpperCase()}  ${finding.type} version ${finding.version}  (${finding.type}:${finding.rule})`,
      )
      line(`  ${finding.what}.`)
      line(`  ${finding.why}`)
      line(`  ${finding.remedy}`)
    }
  }
  const breaking = findings.filter(({ severity }) => severity === 'breaking').length
  line()
  line(breaking === 0 ? 'Nothing breaks.' : `${counted(breaking, 'breaking change')}.`)
}
