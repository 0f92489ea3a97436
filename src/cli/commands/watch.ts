import { defineCommand } from '../command/command.ts'
import { describeError } from '../command/describe-error.ts'
import { durationSeconds } from '../command/flags.ts'
import { count, counted, duration, isoTime } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { quiet, red } from '../output/styled.ts'
import { readStatus, type Status } from '../views/read-status.ts'
import { writeStatus } from './status.ts'

export const watch = defineCommand({
  examples: [
    ['watch', 'while a deployment or a redrive runs: q ends it'],
    ['watch --interval 10s >> status.log', 'a line every ten seconds'],
  ],
  notes: [
    'On a terminal it is `bossbus status`, drawn again and again. Elsewhere, and with --json, a line each time.',
  ],
  flags: { interval: durationSeconds('How long between two looks', { min: 0.1, max: 86_400, default: 2 }) },
  isLong: true,
  async run({ flags, bus, output, inTime, interruption, keys }) {
    const signal = interruption()
    const opened = await inTime(bus())
    const quit = new AbortController()
    const ended = AbortSignal.any([signal, quit.signal])
    let last: Status | undefined = await inTime(readStatus(opened, output.command))
    let problem: string | undefined
    const screen = output.screen()
    const draw = (): void =>
      screen?.draw((page) => {
        page.line(
          quiet(
            `${isoTime(new Date(output.now())).slice(11, 19)} UTC, every ${duration(flags.interval * 1000)}. q ends it.`,
          ),
        )
        if (problem !== undefined) page.line(red(problem))
        page.line()
        if (last !== undefined) writeStatus(page, last)
      })
    const stopHearing =
      screen === undefined
        ? undefined
        : keys?.((key) => (key === 'q' || key === 'Q' ? quit.abort() : undefined))
    screen?.onResize(draw)
    try {
      for (;;) {
        if (screen === undefined) writeLine(output, last, problem)
        else draw()
        await pause(flags.interval * 1000, ended)
        if (ended.aborted) return 0
        try {
          last = await untilAborted(inTime(readStatus(opened, output.command)), ended)
          problem = undefined
        } catch (error) {
          if (ended.aborted) return 0
          // Its figures stay on the screen.
          problem = `${isoTime(new Date(output.now())).slice(11, 19)} ${describeError(error).message}`
        }
      }
    } finally {
      stopHearing?.()
      screen?.end()
    }
  },
})

/** As JSON the object of `bossbus status`, with the time. */
function writeLine(output: Output, status: Status | undefined, problem: string | undefined): void {
  const at = new Date(output.now())
  if (problem !== undefined || status === undefined) output.note(problem ?? '')
  else if (output.isJson) output.event({ at, ...status })
  else {
    const { findings, subscriptions, outbox } = status
    const sum = (value: (each: (typeof subscriptions)[number]) => number | undefined): string =>
      count(subscriptions.reduce((total, each) => total + (value(each) ?? 0), 0))
    const lag = Math.max(0, ...subscriptions.map(({ lagSeconds = 0 }) => lagSeconds))
    const bad = findings.filter(({ severity }) => severity !== 'info')
    output.line(
      [
        isoTime(at),
        bad.length === 0 ? 'ok' : bad.map(({ code, severity }) => `${severity}:${code}`).join(','),
        counted(subscriptions.length, 'subscription'),
        `lag ${duration(lag * 1000)}`,
        `outbox ${outbox === undefined ? '?' : count(outbox.depth)}`,
        `ready ${sum(({ readyEvents = 0, pausedEvents = 0 }) => readyEvents + pausedEvents)}`,
        `active ${sum(({ activeEvents }) => activeEvents)}`,
        `retrying ${sum(({ retryingEvents }) => retryingEvents)}`,
        `dead ${sum(({ deadEvents }) => deadEvents)}`,
      ].join('  '),
    )
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal.addEventListener('abort', end)
  })
}

/** Work that a person need not wait for. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const abort = (): void => aborted.reject(new Error('ended'))
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
