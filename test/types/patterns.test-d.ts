import { expectTypeOf, test } from 'vitest'
import type { EventDefinition, EventPattern, MatchedType } from '../../src/index.ts'
import type { patternCases } from '../events/pattern-cases.ts'
import type { Events } from './support.ts'

type Matches<T extends string, P extends string> = [
  MatchedType<{ readonly [K in T]: EventDefinition }, P>,
] extends [never]
  ? false
  : true

/** The cases of the list in which the types judge differently from what the list says. */
type Disagreement<Cases extends readonly (readonly [string, string, boolean])[]> = {
  [I in keyof Cases]: Matches<Cases[I][0], Cases[I][1]> extends Cases[I][2] ? never : Cases[I]
}[number]

test('the types judge as the running code does', () => {
  expectTypeOf<Disagreement<typeof patternCases>>().toBeNever()
  expectTypeOf<Disagreement<readonly [readonly ['a', 'b', true], readonly ['a', '*', true]]>>().toEqualTypeOf<
    readonly ['a', 'b', true]
  >()
})

test('a pattern of a catalogue is a name or has a wildcard', () => {
  expectTypeOf<'payment.paid'>().toExtend<EventPattern<Events>>()
  expectTypeOf<'**'>().toExtend<EventPattern<Events>>()
  expectTypeOf<'payment.*'>().toExtend<EventPattern<Events>>()
  expectTypeOf<'payment.payed'>().not.toExtend<EventPattern<Events>>()
  expectTypeOf<string>().not.toExtend<EventPattern<Events>>()
})

test('what a pattern refused at run time matches is nothing', () => {
  expectTypeOf<MatchedType<Events, 'pay*'>>().toBeNever()
  expectTypeOf<MatchedType<Events, '**.paid'>>().toBeNever()
  expectTypeOf<MatchedType<Events, 'payment.***'>>().toBeNever()
})

test('a union of patterns matches what any of them does', () => {
  expectTypeOf<MatchedType<Events, 'note' | '*.placed'>>().toEqualTypeOf<'note' | 'order.placed'>()
})
