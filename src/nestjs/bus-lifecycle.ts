import { invalidOption } from '../foundation/options.ts'
import type {
  BeforeApplicationShutdown,
  OnApplicationBootstrap,
  OnApplicationShutdown,
  OnModuleInit,
} from '@nestjs/common'
import type { DiscoveryService } from '@nestjs/core'
import type { Bus } from '../bus.ts'
import { createRunningHandlers } from './running-handlers.ts'
import { decoratedMethods } from './subscribe.ts'

/** The resolved options of `BusModule.forBus`. */
export interface LifecycleOptions {
  readonly migrate: boolean
  readonly graceMs: number
}

type Wrapper = ReturnType<DiscoveryService['getProviders']>[number]

/**
 * Subscribes the decorated methods, and starts and stops the bus with the application. A bus that was already started
 * is only used, and not stopped.
 */
export class BusLifecycle
  implements OnModuleInit, OnApplicationBootstrap, BeforeApplicationShutdown, OnApplicationShutdown
{
  readonly #bus: Bus
  readonly #discovery: DiscoveryService
  readonly #options: LifecycleOptions
  readonly #ownsBus: boolean
  readonly #running = createRunningHandlers()

  constructor(bus: Bus, discovery: DiscoveryService, options: LifecycleOptions) {
    this.#bus = bus
    this.#discovery = discovery
    this.#options = options
    this.#ownsBus = bus.state === 'created'
  }

  /** Every provider exists by now, in every module. */
  onModuleInit(): void {
    const wrappers = [...this.#discovery.getProviders(), ...this.#discovery.getControllers()]
    if (wrappers.filter(({ instance }) => instance instanceof BusLifecycle).length > 1)
      throw invalidOption(
        'Expected one BusModule in an application: each of several would subscribe all decorated methods',
      )
    const seen = new Set<unknown>()
    for (const wrapper of wrappers) {
      const instance: unknown = wrapper.instance
      // The same instance under another token.
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue
      seen.add(instance)
      this.#subscribe(wrapper, instance as Record<string | symbol, Handler>)
    }
  }

  async onApplicationBootstrap(): Promise<void> {
    if (!this.#ownsBus) return
    try {
      if (this.#options.migrate) await this.#bus.migrate()
      await this.#bus.start()
    } catch (error) {
      // The caller must see why it did not start.
      await this.#bus.stop({ graceMs: 0 }).catch(() => {})
      throw error
    }
  }

  /** No new handler starts, and running handlers have finished. Requests are still served, and may publish. */
  async beforeApplicationShutdown(): Promise<void> {
    if (!this.#ownsBus) return
    const stopping = this.#bus.stop({ graceMs: this.#options.graceMs, keepOpen: true })
    await Promise.race([stopping, this.#running.settled()])
  }

  /** The HTTP server is closed: nobody publishes any more. */
  async onApplicationShutdown(): Promise<void> {
    if (this.#ownsBus) await this.#bus.stop({ graceMs: this.#options.graceMs })
  }

  #subscribe(wrapper: Wrapper, instance: Record<string | symbol, Handler>): void {
    for (const { name, subscriptions } of decoratedMethods(Object.getPrototypeOf(instance) as object)) {
      if (wrapper.isTransient || !wrapper.isDependencyTreeStatic())
        throw invalidOption(
          `Expected \`${wrapper.name}\` to be a provider of the default scope: events arrive outside any request, so there would be no instance for \`${String(name)}\``,
        )
      const handler: Handler = async (event, ctx) => this.#running.run(() => instance[name]?.(event, ctx))
      for (const subscription of subscriptions)
        this.#bus.subscribe({ ...subscription, handler } as unknown as Parameters<Bus['subscribe']>[0])
    }
  }
}

type Handler = (event: unknown, ctx: unknown) => unknown
