/**
 * Compares bossbus with alternatives. Every contestant runs in a process of its own, on a database of its own on the
 * same server, in turn, round after round. The results are medians, and ratios within the run.
 *
 *   npm run bench                                      all of it, in full
 *   npm run bench -- --quick                           a smoke test, under a minute
 *   npm run bench -- --only throughput,latency --json
 *   npm run bench -- --help
 */
import { killChildren, startChild } from './child.ts'
import { describeMachine } from './machine.ts'
import { documentReport } from './document.ts'
import { parseOptions, usage, UsageError, type BenchSettings } from './options.ts'
import { renderHead, renderMarkdown, renderMarkdownHead, renderText } from './render.ts'
import { reportWorkload, type Report, type WorkloadReport } from './report.ts'
import { runWorkload } from './runner.ts'
import { startBenchServer } from './server.ts'
import { workloads } from './workloads/all.ts'

const settings = readSettings()
const interruption = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interruption.abort(signal))
try {
  const report = await run(settings)
  if (settings.document) await documentReport(report)
  if (settings.format === 'json') console.log(JSON.stringify(report, undefined, 1))
  else if (settings.format === 'text') console.log(`\n${report.durationSeconds} s in all`)
  if (
    report.workloads.some(({ cases }) =>
      cases.some(({ variants }) => variants.some(({ failed }) => failed !== undefined)),
    )
  ) {
    console.error('some contestants failed, see above')
    process.exitCode = 1
  }
} catch (error) {
  if (!interruption.signal.aborted) throw error
  console.error('interrupted: everything is stopped')
  process.exitCode = 130
}

function readSettings(): BenchSettings {
  let parsed: BenchSettings | 'help'
  try {
    parsed = parseOptions(process.argv.slice(2), workloads)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(error.message)
    return process.exit(1)
  }
  if (parsed !== 'help') return parsed
  console.log(usage(workloads))
  return process.exit(0)
}

/** Runs the selected workloads, and prints each as soon as it is done. Stops everything it started. */
async function run(settings: BenchSettings): Promise<Report> {
  const startedAt = new Date()
  const server = await startBenchServer()
  try {
    const { version, description, fileSystem, settings: serverSettings, warnings } = server
    const head = {
      startedAt: startedAt.toISOString(),
      settings,
      machine: await describeMachine(),
      server: { version, description, fileSystem, settings: serverSettings, warnings },
    }
    print(renderHead(head), renderMarkdownHead(head))
    const reports: WorkloadReport[] = []
    for (const workload of workloads.filter(({ name }) => settings.only.includes(name))) {
      const bench = { settings, server, startChild, progress, signal: interruption.signal }
      const cases = await orInterrupted(runWorkload(workload, bench))
      const report = reportWorkload(workload, cases)
      reports.push(report)
      print(renderText(report), renderMarkdown(report))
    }
    return { ...head, durationSeconds: secondsSince(startedAt), workloads: reports }
  } finally {
    killChildren()
    await server.stop()
  }

  function progress(message: string): void {
    console.error(`${String(secondsSince(startedAt)).padStart(5)} s  ${message}`)
  }
}

/** Standard output contains only the report if a program reads it. */
function print(text: string, markdown: string): void {
  if (settings.format === 'text') console.log(text)
  if (settings.format === 'markdown') console.log(markdown)
}

/** Running work is not awaited: its programs are ended and its server is stopped. */
async function orInterrupted<T>(work: Promise<T>): Promise<T> {
  const { signal } = interruption
  work.catch(() => {})
  return Promise.race([
    work,
    new Promise<never>((_, reject) => {
      const refuse = (): void => reject(new Error(`interrupted by ${String(signal.reason)}`))
      if (signal.aborted) refuse()
      else signal.addEventListener('abort', refuse, { once: true })
    }),
  ])
}

function secondsSince(start: Date): number {
  return Math.round((Date.now() - start.getTime()) / 1000)
}
