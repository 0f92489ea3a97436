import { expect, test } from 'vitest'
import type { Reading } from '../../../src/telemetry/prometheus/gauges.ts'
import { createSections, type Section } from '../../../src/telemetry/prometheus/sections.ts'
import { holdClock } from '../../support/held-clock.ts'

const up: Section = { name: 'health', read: async () => [{ gauge: 'databaseUp', value: 1 }] }
const down: Section = { name: 'health', read: async () => [{ gauge: 'databaseUp', value: 0 }] }

/** A section that counts its reads. */
function countingSection(name: string, read = async (): Promise<void> => {}) {
  let count = 0
  const section: Section = {
    name,
    async read() {
      count += 1
      await read()
      return [{ gauge: 'scheduled', value: count }]
    },
  }
  return { section, readCount: () => count }
}

const ignore = (): void => {}

const valuesOf = (readings: readonly Reading[], gauge: Reading['gauge']): Record<string, number> =>
  Object.fromEntries(
    readings
      .filter((each) => each.gauge === gauge)
      .map(({ labels, value }) => [labels?.section ?? '', value]),
  )

test('a section that fails, or throws at once, says so and takes nothing from the others', async () => {
  const good = countingSection('good')
  const failures: string[] = []
  const throwing: Section = {
    name: 'throwing',
    read: () => {
      throw new Error('at once')
    },
  }
  const rejecting: Section = { name: 'rejecting', read: async () => Promise.reject(new Error('no')) }
  const sections = createSections(up, [throwing, rejecting, good.section], (section, error) =>
    failures.push(`${section}: ${(error as Error).message}`),
  )
  await sections.refresh()
  expect(valuesOf(sections.readings(), 'sectionUp')).toEqual({
    health: 1,
    throwing: 0,
    rejecting: 0,
    good: 1,
  })
  expect(valuesOf(sections.readings(), 'scheduled')).toEqual({ '': 1 })
  expect(failures).toEqual(['throwing: at once', 'rejecting: no'])
})

test('a section that failed is read again, and its old values are gone meanwhile', async () => {
  const clock = holdClock()
  let isBroken = false
  let failureCount = 0
  const flaky = countingSection('flaky', async () => {
    if (isBroken) throw new Error('no')
  })
  const sections = createSections(up, [flaky.section], () => {
    failureCount += 1
  })
  const scheduled = async (): Promise<Record<string, number>> => {
    clock.advance(11_000)
    await sections.refresh()
    return valuesOf(sections.readings(), 'scheduled')
  }
  expect(await scheduled()).toEqual({ '': 1 })
  isBroken = true
  expect(await scheduled()).toEqual({})
  expect(await scheduled()).toEqual({})
  // It is told of once.
  expect(failureCount).toBe(1)
  isBroken = false
  expect(await scheduled()).toEqual({ '': 4 })
})

test('a section that takes long is read less often', async () => {
  const clock = holdClock()
  const slow = countingSection('slow', async () => clock.advance(1000))
  const quick = countingSection('quick')
  const sections = createSections(up, [slow.section, quick.section], ignore)
  await sections.refresh()
  clock.advance(10_000)
  await sections.refresh()
  expect([slow.readCount(), quick.readCount()]).toEqual([1, 2])
  clock.advance(40_000)
  await sections.refresh()
  expect([slow.readCount(), quick.readCount()]).toEqual([2, 3])
  expect(valuesOf(sections.readings(), 'sectionDuration')).toMatchObject({ slow: 1 })
})

test('while the database is down nothing else is read, and what was read is not shown', async () => {
  const clock = holdClock()
  let isUp = true
  const section = countingSection('depth')
  const health: Section = { name: 'health', read: async () => (isUp ? up : down).read() }
  const sections = createSections(health, [section.section], ignore)
  await sections.refresh()
  isUp = false
  clock.advance(11_000)
  await sections.refresh()
  expect(section.readCount()).toBe(1)
  expect(valuesOf(sections.readings(), 'sectionUp')).toEqual({ health: 1, depth: 0 })
  expect(valuesOf(sections.readings(), 'scheduled')).toEqual({})
})

test('a database that was waited for in vain is asked again ten seconds later', async () => {
  const clock = holdClock()
  let isUp = false
  const health: Section = {
    name: 'health',
    async read() {
      if (!isUp) clock.advance(5000)
      return (isUp ? up : down).read()
    },
  }
  const sections = createSections(health, [], ignore)
  await sections.refresh()
  expect(valuesOf(sections.readings(), 'databaseUp')).toEqual({ '': 0 })
  isUp = true
  clock.advance(9000)
  await sections.refresh()
  expect(valuesOf(sections.readings(), 'databaseUp')).toEqual({ '': 0 })
  clock.advance(1100)
  await sections.refresh()
  expect(valuesOf(sections.readings(), 'databaseUp')).toEqual({ '': 1 })
})

test('callers at the same time share one read, and none waits for a section that hangs', async () => {
  const clock = holdClock()
  const hanging = Promise.withResolvers<void>()
  const hung = countingSection('hung', async () => hanging.promise)
  const quick = countingSection('quick')
  const sections = createSections(up, [quick.section, hung.section], ignore, 50)
  await Promise.all([sections.refresh(), sections.refresh(), sections.refresh()])
  expect([quick.readCount(), hung.readCount()]).toEqual([1, 1])
  expect(valuesOf(sections.readings(), 'sectionUp')).toEqual({ health: 1, quick: 1, hung: 0 })
  hanging.resolve()
  await sections.refresh()
  // What was read long ago is not shown.
  expect(valuesOf(sections.readings(), 'sectionUp')).toMatchObject({ quick: 1 })
  clock.advance(301_000)
  expect(valuesOf(sections.readings(), 'sectionUp')).toEqual({ health: 0, quick: 0, hung: 0 })
})
