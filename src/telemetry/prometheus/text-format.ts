import { firstCharacters } from '../../foundation/text.ts'

/** The content type of what {@link writeFamilies} returns: the text format of Prometheus. */
export const prometheusContentType = 'text/plain; version=0.0.4; charset=utf-8'

export type Labels = Readonly<Record<string, string>>

/** A value under a name and labels. */
export interface Sample {
  /** Of a histogram: which of its series it belongs to. */
  readonly suffix?: '_bucket' | '_sum' | '_count' | undefined
  readonly labels: Labels
  /** Of a bucket: its upper bound. */
  readonly le?: string | undefined
  readonly value: number
}

/** What is measured under a name, whatever the labels. */
export interface Family {
  readonly name: string
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly samples: readonly Sample[]
}

/** Longer values of labels are cut. No name that the bus accepts is longer. */
const maxLabelLength = 255

/**
 * Families in the text format of Prometheus, in the order given. Those without samples are left out.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export function writeFamilies(families: readonly Family[]): string {
  const lines: string[] = []
  for (const { name, kind, help, samples } of families) {
    if (samples.length === 0) continue
    lines.push(`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${kind}`)
    for (const { suffix = '', labels, le, value } of samples) {
      const pairs = [writeLabels(labels), le === undefined ? '' : `le="${le}"`].filter((pair) => pair !== '')
      const inBraces = pairs.length === 0 ? '' : `{${pairs.join(',')}}`
      lines.push(`${name}${suffix}${inBraces} ${writeValue(value)}`)
    }
  }
  return lines.map((line) => `${line}\n`).join('')
}

/**
 * A name as the value of a label: well-formed, bounded, and without characters that could end or hide a line, whatever plain SQL has
 * published or a handler has thrown.
 */
export function toLabelValue(text: string): string {
  return firstCharacters(text, maxLabelLength)
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\uFFFD')
}

/** The labels of a series stay the same object, and have seventeen lines in a histogram. */
const written = new WeakMap<Labels, string>()

function writeLabels(labels: Labels): string {
  const known = written.get(labels)
  if (known !== undefined) return known
  const text = Object.entries(labels)
    .map(([name, value]) => `${name}="${escapeValue(toLabelValue(value))}"`)
    .join(',')
  written.set(labels, text)
  return text
}

function escapeValue(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

function writeValue(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf'
  if (value === Number.NEGATIVE_INFINITY) return '-Inf'
  return String(value)
}
