import type { CaseReport, Report, TargetReport, WorkloadReport } from './report.ts'

/** The environment of the run, as lines. */
export function renderHead({
  machine,
  server,
  settings,
}: Omit<Report, 'workloads' | 'durationSeconds'>): string {
  const { packages } = machine
  return [
    `PostgreSQL ${server.version} (${server.description}${server.fileSystem === undefined ? '' : `, data on ${server.fileSystem}`})`,
    `  ${Object.entries(server.settings)
      .map(([name, value]) => `${name}=${value}`)
      .join(' ')}`,
    ...server.warnings.map((warning) => `  WARNING: ${warning}`),
    `Node ${machine.node}, ${machine.cpuCount} cores (${machine.cpuModel}), ${machine.memoryGb} GB, ${machine.platform}`,
    `  ${Object.entries(packages)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
    `${settings.rounds} ${settings.rounds === 1 ? 'round' : 'rounds'}, ${settings.quick ? 'quick sizes: a smoke test, no measurement' : 'full sizes'}`,
  ].join('\n')
}

/** The same, as Markdown. */
export function renderMarkdownHead(report: Omit<Report, 'workloads' | 'durationSeconds'>): string {
  return `\`\`\`\n${renderHead(report)}\n\`\`\`\n`
}

/** The tables of a workload for a terminal. */
export function renderText(report: WorkloadReport): string {
  const parts = [`\n(${report.letter}) ${report.name}: ${report.measures}`, renderNotes(report)]
  for (const benchCase of report.cases) {
    parts.push(`\n${heading(benchCase)}`, textTable(caseRows(report, benchCase)))
    parts.push(...remarks(benchCase).map((remark) => `  ${remark}`))
  }
  if (report.targets.length > 0) parts.push('\ntargets', textTable(targetRows(report.targets)))
  return parts.join('\n')
}

/** The tables of a workload as Markdown, for docs/benchmarks.md. */
export function renderMarkdown(report: WorkloadReport): string {
  const parts = [
    `### (${report.letter}) ${report.name}`,
    `${report.measures.charAt(0).toUpperCase()}${report.measures.slice(1)}.`,
    renderNotes(report),
  ]
  for (const benchCase of report.cases) {
    parts.push(`**${heading(benchCase)}**`, markdownTable(caseRows(report, benchCase)))
    const lines = remarks(benchCase).map((remark) => `- ${remark}`)
    if (lines.length > 0) parts.push(lines.join('\n'))
  }
  if (report.targets.length > 0) parts.push('**Targets**', markdownTable(targetRows(report.targets)))
  return `${parts.join('\n\n')}\n`
}

function heading({ name, size }: CaseReport): string {
  return size === undefined ? name : `${name} (${size})`
}

/** Notes on what a table does not show, or must not hide. */
function remarks({ variants, aheadOfBossbus }: CaseReport): string[] {
  return [
    ...variants.flatMap(({ name, notAvailable, failed }) => [
      ...(notAvailable === undefined ? [] : [`${name} is not available here: ${notAvailable}`]),
      ...(failed === undefined ? [] : [`${name} FAILED: ${failed}`]),
    ]),
    ...(aheadOfBossbus.length === 0
      ? []
      : [
          `ahead of bossbus: ${aheadOfBossbus.map(({ name, ratio }) => `${name} (${number(ratio, 2)} of its figure)`).join(', ')}`,
        ]),
  ]
}

/** The differences between the contestants of a workload, each listed once. */
function renderNotes({ cases }: WorkloadReport): string {
  const notes = new Map(
    cases.flatMap(({ variants }) => variants.map(({ name, note }) => [name, note] as const)),
  )
  return [...notes].map(([name, note]) => `- ${name}: ${note}`).join('\n')
}

type Rows = readonly (readonly string[])[]

function caseRows({ figures }: WorkloadReport, { variants, reference }: CaseReport): Rows {
  const measured = figures.filter(({ key }) => variants.some(({ medians }) => medians[key] !== undefined))
  return [
    ['contestant', ...measured.map(({ label }) => label), `× ${reference}`],
    ...variants.map(({ name, medians, ofReference }) => [
      name,
      ...measured.map(({ key, decimals }) => number(medians[key], decimals ?? 0)),
      number(ofReference, 2),
    ]),
  ]
}

function targetRows(targets: readonly TargetReport[]): Rows {
  return [
    ['target', 'wanted', 'measured', 'verdict'],
    ...targets.map(({ text, bound, unit, measured, verdict }) => [
      text,
      'atLeast' in bound ? `≥ ${bound.atLeast} ${unit}` : `≤ ${bound.atMost} ${unit}`,
      measured === undefined ? '' : `${number(measured, 2)} ${unit}`,
      verdict,
    ]),
  ]
}

function number(value: number | undefined, decimals: number): string {
  return value === undefined
    ? ''
    : value.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals })
}

function textTable(rows: Rows): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          isNumeric(rows, column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `  ${line}`)
    .join('\n')
}

function markdownTable(rows: Rows): string {
  const [head = [], ...body] = rows
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [
    line(head),
    line(head.map((_, column) => (isNumeric(rows, column) ? '--:' : '---'))),
    ...body.map(line),
  ].join('\n')
}

/** Whether a column contains numbers, which are right-aligned. */
function isNumeric(rows: Rows, column: number): boolean {
  return rows.slice(1).every((row) => /^[\d.,-]*$/.test(row[column] ?? ''))
}
