import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { once } from 'node:events'
import { connect as connectPlain, isIP } from 'node:net'
import { connect as connectSecure } from 'node:tls'
import { hostOf, safeLookup, type ResolveName } from './safe-url.ts'

/** Sends one request after another over connections that stay open. */
export interface HttpCaller {
  /**
   * Sends a POST. A redirect is an answer like any other: it is not followed.
   *
   * @throws what the connection threw; an error named `TimeoutError` after `timeoutMs`; the reason of the signal
   */
  readonly post: (url: URL, request: HttpPost) => Promise<HttpAnswer>
  /** Connects and sends nothing. @throws what the connection threw */
  readonly connect: (url: URL, signal: AbortSignal) => Promise<void>
  /** Ends the connections that are idle. */
  readonly close: () => void
}

interface HttpPost {
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  /** From the call to the end of the answer. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface HttpAnswer {
  readonly status: number
  /** Seconds that the receiver asked to wait, by its header `retry-after`. */
  readonly retryAfterSeconds: number | undefined
  /** The beginning of the body, for a person who looks for the reason. */
  readonly text: string
}

export interface HttpCallerOptions {
  readonly allowPrivate: boolean
  /** Connections to one host at the same time. */
  readonly maxSockets: number
  readonly resolveName?: ResolveName | undefined
}

/** How much of an answer is read. */
const maxAnswerBytes = 2048

const idleMs = 4000

export function createHttpCaller(options: HttpCallerOptions): HttpCaller {
  const { allowPrivate, maxSockets, resolveName } = options
  const pool = {
    keepAlive: true,
    maxSockets,
    maxFreeSockets: 32,
    scheduling: 'lifo',
    timeout: idleMs,
  } as const
  const agents = { 'http:': new HttpAgent(pool), 'https:': new HttpsAgent(pool) }
  const lookup = safeLookup(allowPrivate, resolveName)

  async function post(url: URL, { headers, body, timeoutMs, signal }: HttpPost): Promise<HttpAnswer> {
    const isSecure = url.protocol === 'https:'
    const limit = AbortSignal.timeout(timeoutMs)
    const given: RequestOptions = {
      method: 'POST',
      protocol: url.protocol,
      hostname: hostOf(url),
      port: url.port,
      path: `${url.pathname}${url.search}`,
      headers: { 'user-agent': 'bossbus', ...headers, 'content-length': String(body.length) },
      agent: isSecure ? agents['https:'] : agents['http:'],
      lookup,
      signal: AbortSignal.any([signal, limit]),
    }
    try {
      const answer = await new Promise<IncomingMessage>((resolve, reject) => {
        const sent = isSecure ? httpsRequest(given, resolve) : httpRequest(given, resolve)
        sent.on('error', reject)
        sent.end(body)
      })
      return {
        status: answer.statusCode ?? 0,
        retryAfterSeconds: retryAfterOf(answer.headers['retry-after']),
        text: await beginningOf(answer),
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (limit.aborted)
        throw Object.assign(new Error(`no answer within ${timeoutMs} ms`), { name: 'TimeoutError' })
      throw error
    }
  }

  async function connect(url: URL, signal: AbortSignal): Promise<void> {
    const isSecure = url.protocol === 'https:'
    const host = hostOf(url)
    const port = Number(url.port === '' ? (isSecure ? 443 : 80) : url.port)
    const socket = isSecure
      ? connectSecure({ host, port, lookup, ...(isIP(host) === 0 ? { servername: host } : {}) })
      : connectPlain({ host, port, lookup })
    try {
      await once(socket, isSecure ? 'secureConnect' : 'connect', { signal })
    } finally {
      socket.destroy()
    }
  }

  return {
    post,
    connect,
    close() {
      agents['http:'].destroy()
      agents['https:'].destroy()
    },
  }
}

/** Seconds, or a date of HTTP. */
export function retryAfterOf(header: string | undefined): number | undefined {
  if (header === undefined) return undefined
  const text = header.trim()
  if (/^\d{1,9}$/.test(text)) return Number(text)
  // Date.parse would take `-1` for a year.
  const at = /^[A-Za-z]{3,9},? /.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) ? undefined : Math.max(0, Math.ceil((at - Date.now()) / 1000))
}

/** A receiver that sends a long answer is cut off: its status has said all. */
async function beginningOf(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of answer) {
    chunks.push(chunk as Buffer)
    size += (chunk as Buffer).length
    if (size >= maxAnswerBytes) break
  }
  return Buffer.concat(chunks).subarray(0, maxAnswerBytes).toString('utf8')
}
