import { ConfigurationError } from '../foundation/errors.ts'
import { nearest } from '../foundation/options.ts'
import { printable } from '../foundation/text.ts'
import { bossbusFromUrl } from './adapters/bossbus.ts'
import { consoleTransport } from './adapters/console.ts'
import { eventbridgeFromUrl } from './adapters/eventbridge.ts'
import { fileFromUrl } from './adapters/file.ts'
import { httpFromUrl } from './adapters/http.ts'
import { kafkaFromUrl } from './adapters/kafka.ts'
import { mqttFromUrl } from './adapters/mqtt.ts'
import { natsFromUrl } from './adapters/nats.ts'
import { rabbitmqFromUrl } from './adapters/rabbitmq.ts'
import { redisFromUrl } from './adapters/redis.ts'
import { noop } from './adapters/noop.ts'
import { snsFromUrl } from './adapters/sns.ts'
import { sqsFromUrl } from './adapters/sqs.ts'
import { fanOut } from './fan-out.ts'
import type { Transport } from './sending/transport.ts'
import { TransportUrl } from './sending/transport-url.ts'

/** What makes a transport from a URL, by its scheme. Each refuses a URL that it cannot use, and connects later. */
const schemes: Readonly<Record<string, (url: TransportUrl) => Transport>> = {
  noop: () => noop(),
  bossbus: bossbusFromUrl,
  console: (url) => consoleTransport({ payload: url.flag('payload', false) }),
  file: fileFromUrl,
  kafka: kafkaFromUrl,
  sns: snsFromUrl,
  sqs: sqsFromUrl,
  eventbridge: eventbridgeFromUrl,
  http: httpFromUrl,
  https: httpFromUrl,
  nats: natsFromUrl,
  amqp: rabbitmqFromUrl,
  amqps: rabbitmqFromUrl,
  redis: redisFromUrl,
  rediss: redisFromUrl,
  mqtt: mqttFromUrl,
  mqtts: mqttFromUrl,
}

/** Spaces, and a comma before a scheme. A comma before `host:9092` is one between hosts of a URL. */
const betweenUrls = /,*\s+,*|,+(?=[a-z][a-z0-9+.-]*:(?!\d+(?:[,/?#\s]|$)))|^,+|,+$/i

/** Of a text with URLs: of what is longer, some system would refuse a part. */
const maxLength = 16_384

/**
 * Makes a transport from a URL, so that a deployment chooses where events go: `transportFromUrl(process.env.FORWARD_TO)`. Several URLs, also
 * in one text with spaces or commas between them, are several transports: `bus.forward` makes a subscription for each. The clients come from
 * optional packages, which are loaded by `bus.start`. docs/guide/transports.md lists the URLs.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_TRANSPORT_URL`. Its message has no password of a URL
 */
export function transportFromUrl(...urls: readonly [string, ...string[]]): Transport {
  if (urls.some((text) => typeof text === 'string' && text.length > maxLength))
    throw new ConfigurationError(
      'BUS_INVALID_TRANSPORT_URL',
      `Expected URLs of at most ${maxLength} characters`,
    )
  const texts = urls
    .flatMap((text) => (typeof text === 'string' ? text.split(betweenUrls) : [text]))
    .filter((text) => text !== '')
  if (texts.length === 0)
    throw new ConfigurationError(
      'BUS_INVALID_TRANSPORT_URL',
      'Expected the URL of a transport, got an empty text',
    )
  const transports = texts.map((text) => {
    const url = new TransportUrl(text)
    const make = Object.hasOwn(schemes, url.scheme) ? schemes[url.scheme] : undefined
    if (make !== undefined) {
      const transport = make(url)
      url.refuseUnknown()
      return transport
    }
    const near = nearest(url.scheme, Object.keys(schemes))
    throw url.refuse(
      `the scheme \`${printable(url.scheme, 20)}\` is not known. ${near === undefined ? `Known are: ${Object.keys(schemes).join(', ')}` : `Did you mean \`${near}\`?`}`,
    )
  })
  const [only] = transports
  return only !== undefined && transports.length === 1 ? only : fanOut(transports)
}
