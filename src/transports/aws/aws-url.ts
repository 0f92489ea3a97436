import type { TransportUrl } from '../sending/transport-url.ts'

/** The configuration of a client that a transport makes itself. Credentials come from where the SDK looks for them. */
export interface AwsConfig {
  region?: string
  endpoint?: string
}

/** An Amazon Resource Name. */
export interface Arn {
  readonly text: string
  readonly region: string
  readonly account: string
  /** What follows the account: `orders.fifo`, `event-bus/orders`. */
  readonly resource: string
}

/** Where a queue is. Its URL is known, or asked for by name. */
export interface QueueAddress {
  readonly region: string | undefined
  readonly isFifo: boolean
  readonly url: string | undefined
  /** Of a host that is not one of AWS. */
  readonly endpoint: string | undefined
  /** For `GetQueueUrl`, if there is no URL. */
  readonly name: string
  readonly account: string | undefined
}

/**
 * Reads the parameters `region` and `endpoint`.
 *
 * @param region - what the rest of the URL says
 * @param host - where the service is, if the rest of the URL says that
 */
export function clientConfig(url: TransportUrl, region: string | undefined, host?: string): AwsConfig {
  const given = url.text('region') ?? region
  if (given !== undefined && !/^[a-z0-9-]{1,40}$/.test(given))
    throw url.refuse('`region` is a region, such as `eu-central-1`')
  const endpoint = url.text('endpoint') ?? host
  if (endpoint !== undefined && !isHttp(endpoint))
    throw url.refuse('`endpoint` is an http or https URL without credentials')
  return {
    ...(given === undefined ? {} : { region: given }),
    ...(endpoint === undefined ? {} : { endpoint }),
  }
}

/** An ARN of a service; undefined for another text. */
export function arnOf(text: string, service: string): Arn | undefined {
  const match = /^arn:aws[a-z-]{0,20}:([a-z-]{1,20}):([a-z0-9-]{1,40}):(\d{12}):(.+)$/.exec(text)
  const [, found, region = '', account = '', resource = ''] = match ?? []
  return found === service ? { text, region, account, resource } : undefined
}

/** The queue of `sqs:https://…` or `sqs:arn:…`. @throws a `ConfigurationError` `BUS_INVALID_TRANSPORT_URL` */
export function queueOf(given: TransportUrl): QueueAddress {
  const { path } = given
  const arn = arnOf(path, 'sqs')
  if (arn !== undefined) {
    if (!isQueueName(arn.resource)) throw given.refuse('the ARN has no name of a queue')
    const { region, account, resource } = arn
    const isFifo = resource.endsWith('.fifo')
    return { region, account, name: resource, isFifo, url: undefined, endpoint: undefined }
  }
  if (!isHttp(path) || new URL(path).pathname.length < 2)
    throw given.refuse(
      'expected the URL of a queue, such as `sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/orders`, or its ARN',
    )
  const { hostname, pathname, origin } = new URL(path)
  const region = /(?:^|\.)sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\./.exec(hostname)?.[1]
  const name = pathname.split('/').at(-1) ?? ''
  const endpoint = region === undefined ? origin : undefined
  return { region, account: undefined, name, isFifo: name.endsWith('.fifo'), url: path, endpoint }
}

function isQueueName(name: string): boolean {
  return /^[A-Za-z0-9_-]{1,80}(?:\.fifo)?$/.test(name)
}

function isHttp(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, username, password, hostname, search } = new URL(text)
  const isPlain = username === '' && password === '' && search === ''
  return (protocol === 'https:' || protocol === 'http:') && hostname !== '' && isPlain
}
