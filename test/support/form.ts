/** Whether the long forms of tests run: `npm run test:chaos`. The short ones are part of `npm test` and `npm run test:slow`. */
export const isFullForm = process.env['BOSSBUS_CHAOS'] === 'full'
