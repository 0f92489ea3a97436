import { setTimeout as pause } from 'node:timers/promises'

/** How a handler can end its process. */
export type Ending = 'abort' | 'exit' | 'out of memory'

export async function endProcess(how: Ending): Promise<void> {
  if (how === 'abort') process.abort()
  if (how === 'exit') process.exit(1)
  const hoard: number[][] = []
  for (;;) {
    hoard.push(Array.from({ length: 1_000_000 }, Math.random))
    await pause(0)
  }
}
