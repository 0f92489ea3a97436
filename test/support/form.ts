/** Whether the long forms of the chaos tests run: `npm run test:chaos`. The short ones are part of `npm test`. */
export const isFullForm = process.env['BOSSBUS_CHAOS'] === 'full'
