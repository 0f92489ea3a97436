import { readFileSync } from 'node:fs'

const lookMs = 500

/**
 * Aborted when the process that has started this one is gone: npx, or the shell that it uses, which pass no signal on when they are ended.
 *
 * @param readAncestors - the ids of the processes above this one, nearest first
 */
export function parentGone(
  ended: AbortSignal,
  readAncestors: () => readonly number[] = ancestors,
  everyMs = lookMs,
): AbortSignal {
  const gone = new AbortController()
  const first = readAncestors().join(' ')
  const timer = setInterval(() => {
    if (readAncestors().join(' ') !== first) gone.abort()
    if (gone.signal.aborted || ended.aborted) clearInterval(timer)
  }, everyMs)
  // What runs besides keeps the process alive, or nothing does.
  timer.unref()
  return gone.signal
}

const shellName = /^Name:\s*(?:sh|dash|ash|bash|zsh|ksh|busybox)$/m

/** The parent. Where that is a shell between npx and its command, which stays when npx ends, also the parent of that one. */
function ancestors(): readonly number[] {
  const parent = process.ppid
  try {
    const status = readFileSync(`/proc/${parent}/status`, 'utf8')
    const above = /^PPid:\s*(\d+)$/m.exec(status)?.[1]
    return above === undefined || !shellName.test(status) ? [parent] : [parent, Number(above)]
  } catch {
    return [parent]
  }
}
