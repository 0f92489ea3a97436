/**
 * `bossbus/transports`: sends events to other systems, and receives from them. Each transport for a broker has a module of its own, such as
 * `bossbus/transports/kafka`, and takes the client that you have. docs/guide/transports.md has all.
 *
 * @module
 */
export type { PublishResult, Transport, TransportCall } from './sending/transport.ts'
export type { ClaimCheck, Envelope, EnvelopeOptions } from './sending/envelope.ts'
export type { ForwardOptions } from './forward.ts'
export type { MappedEvents, ReceiveOptions } from './receive.ts'
export {
  messageHeaders,
  repeatUntilStored,
  type ReceiveCall,
  type ReceivedMessage,
  type ReceiveMessages,
  type Source,
  type SourceContext,
} from './receiving/source.ts'
export { consoleTransport, type ConsoleOptions } from './adapters/console.ts'
export { file, type FileOptions } from './adapters/file.ts'
export { noop } from './adapters/noop.ts'
export { fanOut } from './fan-out.ts'
export { transportFromUrl } from './from-url.ts'
