import { expect, test } from 'vitest'
import { createSemaphore } from '../../../src/delivery/concurrency/semaphore.ts'
import { createOrderedStarts } from '../../../src/delivery/concurrency/handler-slots.ts'

/** Work that ends when it is told to, and what was begun so far. */
function controlledWork() {
  const begun: string[] = []
  const ends = new Map<string, PromiseWithResolvers<void>>()
  return {
    begun,
    begin: async (id: string): Promise<void> => {
      begun.push(id)
      const end = Promise.withResolvers<void>()
      ends.set(id, end)
      return end.promise
    },
    end: async (id: string): Promise<void> => {
      ends.get(id)?.resolve()
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}

test('as many are begun as the gate has places, in order, one job after the other', async () => {
  const starts = createOrderedStarts(createSemaphore(2))
  const { begun, begin, end } = controlledWork()
  const first = starts.run(['a', 'b', 'c'], begin)
  const second = starts.run(['d', 'e'], begin)
  await end('')
  expect(begun).toEqual(['a', 'b'])
  await end('b')
  expect(begun).toEqual(['a', 'b', 'c'])
  await end('c')
  expect(begun).toEqual(['a', 'b', 'c', 'd'])
  await end('a')
  await first
  expect(begun).toEqual(['a', 'b', 'c', 'd', 'e'])
  await end('d')
  await end('e')
  await second
})

test('what is over at once takes no place from what comes after', async () => {
  const starts = createOrderedStarts(createSemaphore(1))
  const begun: string[] = []
  const begin = (id: string): undefined => void begun.push(id)
  await Promise.all([starts.run(['a', 'b'], begin), starts.run(['c'], begin)])
  expect(begun).toEqual(['a', 'b', 'c'])
})

test('what is taken off meanwhile is not begun, but for the one that is waiting for a place', async () => {
  const starts = createOrderedStarts(createSemaphore(1))
  const { begun, begin, end } = controlledWork()
  const ids = new Set(['a', 'b', 'c'])
  const running = starts.run(ids, begin)
  await end('')
  ids.clear()
  await end('a')
  await end('b')
  await running
  expect(begun).toEqual(['a', 'b'])
})

test('one that throws fails its job when the others are over, and nothing else', async () => {
  const starts = createOrderedStarts(createSemaphore(1))
  const begun: string[] = []
  const begin = (id: string): Promise<void> | undefined => {
    begun.push(id)
    if (id === 'a') throw new Error('thrown')
    return id === 'b' ? Promise.reject(new Error('rejected')) : undefined
  }
  await expect(starts.run(['a', 'b', 'c'], begin)).rejects.toThrow('thrown')
  await starts.run(['d'], begin)
  await expect(starts.run(['b'], begin)).rejects.toThrow('rejected')
  expect(begun).toEqual(['a', 'b', 'c', 'd', 'b'])
})
