import type { TextStream } from './streams.ts'

/** A page that fills the terminal and is drawn again and again. What was on the terminal before comes back at its end. */
export interface Screen<Output> {
  /** Draws the page in place of the last one. Of one that is higher than the terminal, the beginning. */
  readonly draw: (page: (output: Output) => void) => void
  /** Calls the listener whenever the size of the terminal has changed, until the end. */
  readonly onResize: (listener: () => void) => void
  /** Gives the terminal back. Calling it again changes nothing. */
  readonly end: () => void
}

/** The alternate screen of xterm, without a cursor; lines that are too long are cut. */
const begin = '\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l'
const finish = '\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l'

const home = '\u{1b}[H'
const clearLine = '\u{1b}[K'
const clearBelow = '\u{1b}[J'

const usualRows = 24

/** @param outputOn - makes an output that writes to a stream */
export function openScreen<Output>(
  terminal: TextStream,
  outputOn: (stream: TextStream) => Output,
): Screen<Output> {
  let isOpen = true
  const listeners: (() => void)[] = []
  // However the process ends, its terminal must be usable. Signals are up to the command.
  process.once('exit', end)
  terminal.write(begin)

  function end(): void {
    if (!isOpen) return
    isOpen = false
    process.off('exit', end)
    for (const remove of listeners) remove()
    terminal.write(finish)
  }

  return {
    draw(page) {
      if (!isOpen) return
      let text = ''
      page(
        outputOn({
          write: (more) => void (text += more),
          isTerminal: true,
          get columns() {
            return terminal.columns
          },
        }),
      )
      // A line after the last one would scroll the first one away.
      const lines = text
        .replace(/\n$/, '')
        .split('\n')
        .slice(0, (terminal.rows ?? usualRows) - 1)
      terminal.write(`${home}${lines.map((line) => `${line}${clearLine}\r\n`).join('')}${clearBelow}`)
    },
    onResize(listener) {
      const remove = terminal.onResize?.(listener)
      if (remove !== undefined) listeners.push(remove)
    },
    end,
  }
}
