import { withTimeout } from '../../foundation/with-timeout.ts'
import type { Reading } from './gauges.ts'

/** A part of the metrics that is read from the database, and fails alone. */
export interface Section {
  readonly name: string
  readonly read: () => Promise<readonly Reading[]>
}

/** What is known of the sections. */
export interface Sections {
  /** Reads the sections that are due, and waits for them, but not for long. Never rejects. */
  refresh: () => Promise<void>
  readings: () => readonly Reading[]
}

/** A section is read at most once in this time, and takes at most a fiftieth of it. */
const minRestMs = 10_000
const restPerMs = 50
const maxRestMs = 120_000

/** A section that takes longer has failed. */
const sectionLimitMs = 16_000

/** What was read longer ago than this is not shown any more. */
const maxAgeMs = 300_000

/**
 * How long a caller waits: less than the ten seconds that Prometheus does, and less where there is something to tell already. Reading goes on.
 */
const defaultWaitMs = 5000
const knownWaitMs = 1000

interface State {
  readonly section: Section
  readings: readonly Reading[] | undefined
  readAt: number
  tookMs: number
  dueAt: number
}

/**
 * @param health - is read before the others. They have failed while it says that the database is down, so that a database which does not
 *   answer is waited for once
 * @param onFailure - called when a section fails that did not fail before
 */
export function createSections(
  health: Section,
  others: readonly Section[],
  onFailure: (section: string, error: unknown) => void,
  waitMs = defaultWaitMs,
): Sections {
  const first = stateOf(health)
  const rest = others.map(stateOf)
  let running: Promise<void> | undefined

  /** One after the other, so that the metrics of a process hold one connection. */
  async function readDue(): Promise<void> {
    if (performance.now() >= first.dueAt) await readOne(first)
    const isUp = first.readings?.some(({ gauge, value }) => gauge === 'databaseUp' && value === 1) === true
    // Waiting for it was no work of the database: as soon as it is back, that is told.
    if (!isUp) first.dueAt = Math.min(first.dueAt, performance.now() + minRestMs)
    for (const state of rest)
      if (!isUp) note(state, undefined, performance.now())
      else if (performance.now() >= state.dueAt) await readOne(state)
  }

  async function readOne(state: State): Promise<void> {
    const startedAt = performance.now()
    try {
      note(state, await withTimeout(state.section.read(), sectionLimitMs, tookTooLong), startedAt)
    } catch (error) {
      if (state.readings !== undefined || state.readAt === 0) onFailure(state.section.name, error)
      note(state, undefined, startedAt)
    }
  }

  function note(state: State, readings: readonly Reading[] | undefined, startedAt: number): void {
    const now = performance.now()
    state.readings = readings
    state.readAt = now
    state.tookMs = now - startedAt
    state.dueAt = startedAt + Math.min(maxRestMs, Math.max(minRestMs, state.tookMs * restPerMs))
  }

  return {
    async refresh() {
      running ??= readDue().finally(() => {
        running = undefined
      })
      const isKnown = [first, ...rest].every(({ readAt }) => readAt > 0)
      await withTimeout(running, isKnown ? Math.min(waitMs, knownWaitMs) : waitMs, () => {})
    },
    readings() {
      const now = performance.now()
      return [first, ...rest].flatMap(({ section, readings, readAt, tookMs }): readonly Reading[] => {
        const isUp = readings !== undefined && now - readAt < maxAgeMs
        const labels = { section: section.name }
        if (!isUp) return [{ gauge: 'sectionUp', labels, value: 0 }]
        return [
          ...readings,
          { gauge: 'sectionUp', labels, value: 1 },
          { gauge: 'sectionAge', labels, value: rounded((now - readAt) / 1000) },
          { gauge: 'sectionDuration', labels, value: rounded(tookMs / 1000) },
        ]
      })
    },
  }
}

function tookTooLong(): never {
  throw new Error(`it took longer than ${sectionLimitMs} ms`)
}

function stateOf(section: Section): State {
  return { section, readings: undefined, readAt: 0, tookMs: 0, dueAt: Number.NEGATIVE_INFINITY }
}

function rounded(seconds: number): number {
  return Math.round(seconds * 1000) / 1000
}
