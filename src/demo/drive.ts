import { setTimeout as delay } from 'node:timers/promises'

const intervalMs = 500
const lookMs = 2
const askMs = 250
const patienceMs = 120_000

/** When the handler of this process opened the case of a payment, by `performance.now()`. */
export type OpenedCases = Map<string, number>

/**
 * Simulates a client over HTTP, about two payments a second, until the signal: creates a payment, verifies it, and
 * waits for its case. Prints the time from the answer to `verify`, and so from the commit, to the case.
 *
 * @throws if the service answers unexpectedly
 */
export async function drive(baseUrl: string, openedCases: OpenedCases, signal: AbortSignal): Promise<void> {
  const latencies: number[] = []
  for (let number = 1; !signal.aborted; number += 1) {
    const startedAt = performance.now()
    const paymentId = await verifyNewPayment(baseUrl)
    const verifiedAt = performance.now()
    const openedAt = await waitForCase(baseUrl, paymentId, openedCases, signal)
    openedCases.delete(paymentId)
    if (openedAt !== undefined) {
      const latencyMs = Math.max(0, openedAt - verifiedAt)
      latencies.push(latencyMs)
      console.log(
        `#${number} payment ${paymentId} verified, its case opened ${latencyMs.toFixed(1)} ms later`,
      )
    } else if (!signal.aborted) {
      console.log(`#${number} payment ${paymentId} verified, no case after ${patienceMs / 1000} s`)
    }
    const restMs = intervalMs - (performance.now() - startedAt)
    if (restMs > 0) await delay(restMs, undefined, { signal }).catch(() => {})
  }
  if (latencies.length > 0) console.log(summaryOf(latencies))
}

async function verifyNewPayment(baseUrl: string): Promise<string> {
  const amountCents = 100 + Math.floor(Math.random() * 100_000)
  const payment = { tenantId: 'acme', amountCents, currency: 'EUR' }
  const { paymentId } = await call<{ paymentId: string }>(`${baseUrl}/payments`, payment)
  const verification = { tenantId: 'acme', verifiedBy: 'the demo', method: 'bank-transfer' }
  await call(`${baseUrl}/payments/${paymentId}/verify`, verification)
  return paymentId
}

async function waitForCase(
  baseUrl: string,
  paymentId: string,
  openedCases: OpenedCases,
  signal: AbortSignal,
): Promise<number | undefined> {
  const giveUpAt = performance.now() + patienceMs
  let askAt = performance.now() + askMs
  while (!signal.aborted && performance.now() < giveUpAt) {
    const openedAt = openedCases.get(paymentId)
    if (openedAt !== undefined) return openedAt
    await delay(lookMs)
    if (performance.now() < askAt) continue
    // Another process on the same database may have opened it.
    const found = await call<unknown[]>(`${baseUrl}/cases?paymentId=${paymentId}`)
    if (found.length > 0) return openedCases.get(paymentId) ?? performance.now()
    askAt = performance.now() + askMs
  }
  return undefined
}

async function call<T>(url: string, body?: object): Promise<T> {
  const request =
    body === undefined
      ? {}
      : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(url, request)
  if (!response.ok) throw new Error(`${url} answered ${response.status}`)
  return (await response.json()) as T
}

function summaryOf(latencies: readonly number[]): string {
  const sorted = latencies.toSorted((a, b) => a - b)
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(1)
  return `${sorted.length} payments, commit to case: median ${at(0.5)} ms, 99 % within ${at(0.99)} ms, longest ${at(1)} ms`
}
