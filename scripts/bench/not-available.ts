/** A contestant that cannot run here: the report gives the reason, and the others continue. */
export class NotAvailableError extends Error {
  override readonly name = 'NotAvailableError'
}
