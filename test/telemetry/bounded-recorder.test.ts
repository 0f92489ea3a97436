import { expect, test } from 'vitest'
import { boundedRecorder } from '../../src/telemetry/bounded-recorder.ts'
import { combineRecorders, noRecorder, type Recorder } from '../../src/telemetry/recorder.ts'

/** Keeps what it is told. */
function recording(isOn = true): Recorder & { readonly calls: unknown[][] } {
  const calls: unknown[][] = []
  const note =
    (name: string) =>
    (...args: unknown[]): void => {
      calls.push([name, ...args])
    }
  return {
    ...{ calls, isOn, operation: note('operation'), sent: note('sent'), attempt: note('attempt') },
    ...{ expired: note('expired'), dead: note('dead'), redriven: note('redriven') },
  }
}

function tellAll(recorder: Recorder): void {
  recorder.operation('publish', 'note', undefined, 1, undefined)
  recorder.sent('note', 2, 'TypeError')
  recorder.attempt('note', 'one', 1, 2, undefined)
  recorder.expired('note', 'one')
  recorder.dead('one', 1)
  recorder.redriven('one', 3)
}

const all = [
  ['operation', 'publish', 'note', undefined, 1, undefined],
  ['sent', 'note', 2, 'TypeError'],
  ['attempt', 'note', 'one', 1, 2, undefined],
  ['expired', 'note', 'one'],
  ['dead', 'one', 1],
  ['redriven', 'one', 3],
]

test('several recorders are told the same', () => {
  const [a, b] = [recording(), recording()]
  tellAll(combineRecorders([a, b]))
  expect(a.calls).toEqual(all)
  expect(b.calls).toEqual(all)
})

test('recorders are on as soon as one of them is', () => {
  expect(combineRecorders([recording(false), recording(false)]).isOn).toBe(false)
  expect(combineRecorders([recording(false), recording(true)]).isOn).toBe(true)
  expect(combineRecorders([])).toBe(noRecorder)
  expect(boundedRecorder(noRecorder).isOn).toBe(false)
})

test('what is told in bounds is told as it is', () => {
  const recorder = recording()
  tellAll(boundedRecorder(recorder))
  expect(recorder.calls).toEqual(all)
})

test('there are so many types of errors and events, and no more', () => {
  const recorder = recording()
  const bounded = boundedRecorder(recorder)
  for (let i = 0; i < 2000; i += 1) bounded.attempt(`type-${i}`, 'one', 1, undefined, `Error${i}`)
  bounded.attempt('type-0', 'one', 1, undefined, undefined)
  const types = new Set(recorder.calls.map(([, type]) => type))
  const errors = new Set(recorder.calls.map((call) => call[5]))
  expect(types.size).toBe(1001)
  expect(types).toContain('_OTHER')
  expect(errors.size).toBe(102)
  expect(recorder.calls.at(-1)).toEqual(['attempt', 'type-0', 'one', 1, undefined, undefined])
})
