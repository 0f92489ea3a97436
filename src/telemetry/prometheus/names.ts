import { attributeNames, type Instrument } from '../instruments.ts'

/** The name of a metric in Prometheus, as OpenTelemetry translates it, so that both ways share dashboards and rules. */
export function metricName({ name, kind, unit }: Pick<Instrument, 'name' | 'kind' | 'unit'>): string {
  const suffix = `${unit === 's' ? '_seconds' : ''}${kind === 'counter' ? '_total' : ''}`
  return `${translated(name)}${suffix}`
}

/** The labels of metrics: the attributes of OpenTelemetry. */
export const labelNames = {
  system: translated(attributeNames.system),
  operationName: translated(attributeNames.operationName),
  operationType: translated(attributeNames.operationType),
  destination: translated(attributeNames.destination),
  subscription: translated(attributeNames.subscription),
  errorType: translated(attributeNames.errorType),
} as const

function translated(name: string): string {
  return name.replaceAll(/[^\w]/g, '_')
}
