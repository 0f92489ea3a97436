import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { EventBridgeClient } from '@aws-sdk/client-eventbridge'
import { onTestFinished } from 'vitest'
import { clientOptions } from './fauxqs.ts'

/** An entry of `PutEvents`, as it came over HTTP. */
export interface PutEntry {
  readonly EventBusName: string
  readonly Source: string
  readonly DetailType: string
  readonly Detail: string
  readonly Time: number
  readonly Resources: readonly string[]
}

/** What becomes of an entry: undefined if it is accepted. */
type JudgeEntry = (
  entry: PutEntry,
) => { readonly ErrorCode: string; readonly ErrorMessage: string } | undefined

/** The part of EventBridge that takes events: `PutEvents` and `DescribeEventBus`, in JSON 1.1 over HTTP. */
export interface EventBridgeStub {
  readonly port: number
  readonly client: EventBridgeClient
  /** The accepted entries, in their order. */
  readonly accepted: PutEntry[]
  /** The entries of each request. */
  readonly requests: (readonly PutEntry[])[]
  judge: JudgeEntry
}

/** The largest sum of the entries of a request, and of an entry. */
const maxBytes = 1_048_576

export async function startEventBridge(
  buses: readonly string[] = ['default', 'orders'],
): Promise<EventBridgeStub> {
  const accepted: PutEntry[] = []
  const requests: (readonly PutEntry[])[] = []

  function answerTo(target: string, input: object): { readonly status: number; readonly body: object } {
    if (target === 'AWSEvents.DescribeEventBus') {
      const { Name } = input as { readonly Name: string }
      if (buses.includes(Name)) return { status: 200, body: { Name } }
      return { status: 400, body: { __type: 'ResourceNotFoundException', message: `no bus ${Name}` } }
    }
    const { Entries } = input as { readonly Entries: readonly PutEntry[] }
    requests.push(Entries)
    const sum = Entries.reduce((bytes, entry) => bytes + sizeOf(entry), 0)
    if (Entries.length > 10 || sum >= maxBytes)
      return {
        status: 400,
        body: { __type: 'ValidationException', message: `${Entries.length} entries, ${sum} bytes` },
      }
    const results = Entries.map((entry) => {
      const failure = buses.includes(entry.EventBusName)
        ? isObject(entry.Detail)
          ? stub.judge(entry)
          : { ErrorCode: 'MalformedDetail', ErrorMessage: 'Detail is malformed.' }
        : { ErrorCode: 'ResourceNotFoundException', ErrorMessage: 'no such bus' }
      if (failure === undefined) accepted.push(entry)
      return failure ?? { EventId: `e-${accepted.length}` }
    })
    return {
      status: 200,
      body: { FailedEntryCount: results.filter((each) => 'ErrorCode' in each).length, Entries: results },
    }
  }

  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const target = String(request.headers['x-amz-target'])
      const { status, body } = answerTo(target, JSON.parse(Buffer.concat(chunks).toString()) as object)
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  const client = new EventBridgeClient(clientOptions(port))
  onTestFinished(async () => {
    client.destroy()
    server.closeAllConnections()
    await new Promise((resolve) => {
      server.close(resolve)
    })
  })
  const stub: EventBridgeStub = { port, client, accepted, requests, judge: () => undefined }
  return stub
}

/** As EventBridge counts. */
export function sizeOf({ Source, DetailType, Detail, Resources }: PutEntry): number {
  return (
    14 + [Source, DetailType, Detail, ...Resources].reduce((sum, text) => sum + Buffer.byteLength(text), 0)
  )
}

function isObject(detail: string): boolean {
  const given: unknown = JSON.parse(detail)
  return typeof given === 'object' && given !== null && !Array.isArray(given)
}
