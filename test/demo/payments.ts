/** The JSON of a POST, for fetch and for inject. */
export const newPayment = { tenantId: 'acme', amountCents: 1250, currency: 'EUR' }

export const verification = { tenantId: 'acme', verifiedBy: 'ada', method: 'bank-transfer' }

/** What `POST /payments/:id/verify` answers. */
export interface Verified {
  readonly paymentId: string
  readonly status: string
  readonly eventId: string
}

/** What `GET /cases` lists. */
export interface OpenedCase {
  readonly caseId: string
  readonly paymentId: string
  readonly tenantId: string
}
