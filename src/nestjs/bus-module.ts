import { Module, type DynamicModule, type FactoryProvider, type ModuleMetadata } from '@nestjs/common'
import { DiscoveryModule, DiscoveryService } from '@nestjs/core'
import type { Bus } from '../bus.ts'
import { StateError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  booleanOption,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from '../foundation/options.ts'
import { BusLifecycle, type LifecycleOptions } from './bus-lifecycle.ts'

/** The injection token of the bus, for `@Inject(busToken)`, `app.get(busToken)` and the `inject` of factories. */
export const busToken: unique symbol = Symbol.for('bossbus.nestjs.bus')

/** A bus of any catalogue. */
type AnyBus = Pick<Bus, 'state' | 'migrate' | 'start' | 'stop' | 'health'>

/** Creates the bus from injected dependencies, like `useFactory` of a provider. */
export interface BusFactory {
  // oxlint-disable-next-line typescript/no-explicit-any -- what Nest injects, in the order of `inject`
  readonly useFactory: (...dependencies: any[]) => AnyBus | Promise<AnyBus>
  readonly inject?: FactoryProvider['inject']
  readonly imports?: ModuleMetadata['imports']
}

export interface BusModuleOptions {
  /**
   * Whether to run `bus.migrate()` before the start. The role must be allowed to create schemas.
   * @defaultValue `false`
   */
  readonly migrate?: boolean | undefined
  /**
   * How long running handlers may take to finish when the application closes, in milliseconds, 0 to 3,600,000. Then
   * their signals are aborted, and the bus has stopped at most six seconds later.
   * @defaultValue `30000`
   */
  readonly graceMs?: number | undefined
}

/**
 * The bus as a global module. It subscribes the methods decorated with `@Subscribe` of all providers and controllers,
 * starts the bus when the application starts, before it listens, and stops it when the application closes. With
 * `app.enableShutdownHooks()` that includes SIGTERM. Use one such module in an application.
 */
// oxlint-disable-next-line typescript/no-extraneous-class -- Nest knows modules by their class
export class BusModule {
  /**
   * @param bus - a bus made by `createBus`, a function that returns one, or a factory with dependencies. If it is not
   *   started yet, the application takes it over: it starts and stops with the application. If it was already started, it
   *   is only used, and takes no decorated methods
   * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link StateError} if the bus was stopped
   */
  static forBus(
    bus: AnyBus | BusFactory | BusFactory['useFactory'],
    options: BusModuleOptions = {},
  ): DynamicModule {
    const resolved = resolveOptions(options)
    const { useFactory, inject = [], imports = [] } = toFactory(bus)
    return {
      module: BusModule,
      global: true,
      imports: [DiscoveryModule, ...imports],
      providers: [
        {
          provide: busToken,
          inject,
          useFactory: async (...dependencies: unknown[]) => usable(await useFactory(...dependencies)),
        },
        {
          provide: BusLifecycle,
          inject: [busToken, DiscoveryService],
          useFactory: (made: Bus, discovery: DiscoveryService) => new BusLifecycle(made, discovery, resolved),
        },
      ],
      exports: [busToken],
    }
  }
}

// The decorator as a function call, because Node does not parse decorator syntax.
Module({})(BusModule)

function toFactory(given: Parameters<typeof BusModule.forBus>[0]): BusFactory {
  if (typeof given === 'function') return { useFactory: given }
  if (given !== null && typeof given === 'object' && 'useFactory' in given) {
    refuseUnknownKeys(given, ['useFactory', 'inject', 'imports'], 'bus')
    return given
  }
  const bus = usable(given)
  return { useFactory: () => bus }
}

function usable(bus: AnyBus): AnyBus {
  if (typeof (bus as Partial<Bus> | null | undefined)?.subscribe !== 'function')
    throw invalidOption(
      `Expected \`BusModule.forBus\` to get a bus made by createBus, or a factory of one, got ${describe(bus)}`,
      'BusModule.forBus',
    )
  if (bus.state === 'stopping' || bus.state === 'stopped')
    throw new StateError(
      'Expected a bus that is running or not started yet: a stopped bus does not start again',
    )
  return bus
}

function resolveOptions(options: BusModuleOptions): LifecycleOptions {
  assertObject('options like { migrate, graceMs }', options)
  refuseUnknownKeys(options, ['migrate', 'graceMs'], 'bus')
  return {
    migrate: booleanOption('migrate', options.migrate, false),
    graceMs: integerOption('graceMs', options.graceMs, limits.graceMs),
  }
}
