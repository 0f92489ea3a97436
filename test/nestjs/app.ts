import {
  Inject,
  Injectable,
  Module,
  type DynamicModule,
  type INestApplicationContext,
  type Type,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { onTestFinished } from 'vitest'
import { nestBus } from '../../src/nestjs/index.ts'
import { paymentEvents } from '../support/bus.ts'

export const { Subscribe } = nestBus(paymentEvents)

type LegacyDecorator = (target: object, key: string, descriptor: PropertyDescriptor) => void

/** Decorates a method as TypeScript's `experimentalDecorators` does: Node does not read the syntax. */
export function decorateMethod(ofClass: Type, name: string, decorator: unknown): void {
  const target = ofClass.prototype as object
  const descriptor = Object.getOwnPropertyDescriptor(target, name)
  ;(decorator as LegacyDecorator)(target, name, descriptor ?? {})
}

/** A provider's class, with what its constructor is given. */
export function injectable<T>(ofClass: Type<T>, ...tokens: readonly (string | symbol | Type)[]): Type<T> {
  Injectable()(ofClass)
  tokens.forEach((token, index) => Inject(token)(ofClass, undefined, index))
  return ofClass
}

/** An application, closed when the test is over. */
export async function startApp(
  imports: readonly DynamicModule[],
  parts: { readonly providers?: Type[]; readonly controllers?: Type[] } = {},
): Promise<INestApplicationContext> {
  // oxlint-disable-next-line typescript/no-extraneous-class -- Nest knows modules by their class
  class AppModule {}
  Module({ imports: [...imports], ...parts })(AppModule)
  const app = await NestFactory.createApplicationContext(AppModule, { logger: false, abortOnError: false })
  onTestFinished(async () => app.close())
  return app
}
