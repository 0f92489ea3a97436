/**
 * `bossbus/testing`: buses for tests, on a real PostgreSQL, and a kit that crashes a subscription at every step of its
 * delivery. Works with any test runner.
 */
export { faultPoints, type FaultPoint } from '../foundation/fault-points.ts'
export type { EventMatcher, EventReference, PayloadPart } from './event-matcher.ts'
export { createFakePublisher } from './fake-publisher.ts'
export type { FakePublisher, FakePublisherOptions } from './fake-publisher.ts'
export { runHandler } from './run-handler.ts'
export type { HandlerRun, RunHandlerOptions } from './run-handler.ts'
export { createTestBus } from './test-bus.ts'
export type { TestBus, WaitOptions } from './test-bus.ts'
export type { TestBusOptions } from './test-bus-options.ts'
export type { EventOutcome } from './event-outcomes.ts'
export { crashAtEveryStep } from './crash-at-every-step.ts'
export type { CrashDatabase, CrashOptions, CrashReport } from './crash-at-every-step.ts'
export type { CrashStep } from './crash-instance.ts'
export { transportContract } from './transport-contract.ts'
export type { ContractCase, ContractMessage, TransportContractOptions } from './transport-contract.ts'
