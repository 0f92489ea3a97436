export { bookPayment } from './book-payment.ts'
export { logEverything } from './log-everything.ts'
export { openCase } from './open-case.ts'
