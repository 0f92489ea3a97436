/** A contestant that cannot run here: the report says why, and the others go on. */
export class NotAvailableError extends Error {
  override readonly name = 'NotAvailableError'
}
