/** A series in the text format of Prometheus. */
interface ParsedSample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface ParsedFamily {
  readonly name: string
  readonly kind: string
  readonly help: string
  readonly samples: readonly ParsedSample[]
}

const suffixes: Readonly<Record<string, readonly string[]>> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
}

/**
 * Reads the text format 0.0.4 more strictly than Prometheus does: each family once, HELP and TYPE before its series, no series twice, no blank
 * lines, no timestamps.
 *
 * @throws where the text is anything else
 */
export function parsePrometheusText(text: string): readonly ParsedFamily[] {
  if (text !== '' && !text.endsWith('\n')) throw new Error('The last line is not ended')
  const families: (ParsedFamily & { readonly samples: ParsedSample[] })[] = []
  const seen = new Set<string>()
  const lines = text.split('\n').slice(0, -1)
  for (const [n, line] of lines.entries()) {
    const fail = (reason: string): Error => new Error(`Line ${n + 1}: ${reason}: ${JSON.stringify(line)}`)
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line)
    const family = families.at(-1)
    if (help !== null) {
      const [, name = '', words = ''] = help
      if (families.some((other) => other.name === name)) throw fail('a family twice')
      const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(lines[n + 1] ?? '')
      if (type?.[1] !== name) throw fail('no TYPE behind HELP')
      families.push({ name, kind: type[2] ?? '', help: words, samples: [] })
    } else if (line.startsWith('#')) {
      if (!line.startsWith(`# TYPE ${family?.name ?? ''} `) || !lines[n - 1]?.startsWith('# HELP'))
        throw fail('a comment that is neither HELP nor TYPE')
    } else {
      const sample = parseSample(line)
      if (sample === undefined) throw fail('not a series')
      const isOwn = suffixes[family?.kind ?? '']?.some(
        (suffix) => sample.name === `${family?.name ?? ''}${suffix}`,
      )
      if (family === undefined || isOwn !== true) throw fail('a series of another family')
      const key = JSON.stringify([
        sample.name,
        Object.entries(sample.labels).toSorted(([a], [b]) => (a < b ? -1 : 1)),
      ])
      if (seen.has(key)) throw fail('a series twice')
      seen.add(key)
      family.samples.push(sample)
    }
  }
  for (const family of families) checkFamily(family)
  return families
}

function parseSample(line: string): ParsedSample | undefined {
  const head = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?/.exec(line)
  if (head === null) return undefined
  const [whole, name = '', brace] = head
  let rest = line.slice(whole.length)
  const labels: Record<string, string> = {}
  if (brace !== undefined) {
    for (;;) {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|\})/.exec(rest)
      if (label === null) return undefined
      const [all, key = '', value = '', end] = label
      if (Object.hasOwn(labels, key)) return undefined
      labels[key] = value.replaceAll(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
      rest = rest.slice(all.length)
      if (end === '}') break
    }
  }
  const value = /^ ([+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN)$/.exec(rest)?.[1]
  if (value === undefined) return undefined
  return { name, labels, value: Number(value.replace('Inf', 'Infinity')) }
}

/** The rules that `promtool check metrics` has, and those of a histogram. */
function checkFamily({ name, kind, help, samples }: ParsedFamily): void {
  const fail = (reason: string): Error => new Error(`${name}: ${reason}`)
  if (samples.length === 0) throw fail('no series')
  if (help.trim() === '') throw fail('no help')
  if ((kind === 'counter') !== name.endsWith('_total'))
    throw fail('_total is for counters, and for all of them')
  if (/_(?:bucket|sum|count)$/.test(name)) throw fail('a suffix of histograms')
  if (/_(?:ms|milliseconds|minutes|hours|days|kilobytes|percent)(?:_|$)/.test(name))
    throw fail('a unit that is not a base unit')
  if (kind !== 'histogram') {
    for (const { labels } of samples) if (Object.hasOwn(labels, 'le')) throw fail('le is for histograms')
    return
  }
  const withoutBound = ({ labels }: ParsedSample): string => JSON.stringify({ ...labels, le: undefined })
  for (const [labels, series] of Map.groupBy(samples, withoutBound)) {
    const buckets = series.filter((sample) => sample.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels: { le = '' } }) => Number(le.replace('+Inf', 'Infinity')))
    const counts = buckets.map(({ value }) => value)
    const [count] = series.filter((sample) => sample.name === `${name}_count`)
    if (series.length !== buckets.length + 2) throw fail(`not one sum and count for ${labels}`)
    if (bounds.at(-1) !== Infinity || counts.at(-1) !== count?.value) throw fail(`no whole of ${labels}`)
    for (let n = 1; n < bounds.length; n += 1)
      if (Number(bounds[n]) <= Number(bounds[n - 1]) || Number(counts[n]) < Number(counts[n - 1]))
        throw fail(`the buckets of ${labels} do not grow`)
  }
}

/** The value of one series; the labels that are given choose it. */
export function valueOf(
  families: readonly ParsedFamily[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const found = families
    .flatMap(({ samples }) => samples)
    .filter(
      (sample) =>
        sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    )
  if (found.length > 1) throw new Error(`${name} has ${found.length} such series`)
  return found[0]?.value
}
