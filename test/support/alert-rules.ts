import { readFile } from 'node:fs/promises'

/** The file of alerts that is in the package. */
export const rulesFile = new URL('../../docs/prometheus-rules.yml', import.meta.url)

/** A rule of the file, which has one form: each key on a line of its own. */
export interface AlertRule {
  readonly alert: string
  readonly expr: string
  readonly severity: string
  readonly summary: string
  readonly description: string
  readonly remedy: string
}

export async function readRules(): Promise<readonly AlertRule[]> {
  const [, ...blocks] = (await readFile(rulesFile, 'utf8')).split(/^ {6}- alert: /m)
  return blocks.map((block) => {
    const valueOf = (key: string): string => {
      const [, value = ''] = new RegExp(`^ +${key}: (.*)$`, 'm').exec(block) ?? []
      return /^'.*'$|^".*"$/.test(value) ? value.slice(1, -1) : value
    }
    const [alert = ''] = block.split('\n')
    const keys = ['expr', 'severity', 'summary', 'description', 'remedy'] as const
    return {
      alert,
      ...(Object.fromEntries(keys.map((key) => [key, valueOf(key)])) as Omit<AlertRule, 'alert'>),
    }
  })
}

/** Names of metrics in PromQL. */
export function metricsIn(expr: string): readonly string[] {
  const withoutTexts = expr.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""')
  return [...withoutTexts.matchAll(/\b(?:bossbus|messaging)_\w+/g)]
    .map(([name]) => name)
    .filter((name) => !/^messaging_(?:destination|operation|system)/.test(name))
}
