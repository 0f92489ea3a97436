/** What kind of project the files are for. */
export interface ProjectKind {
  readonly isTypeScript: boolean
  /** Whether `.ts` and `.js` files of the project are ES modules: `"type": "module"`. */
  readonly isModule: boolean
  /** The folder of the code, such as `src`. */
  readonly folder: string
  /** The name of the service. */
  readonly source: string
}

export interface ProjectFile {
  /** From the folder of package.json. */
  readonly path: string
  readonly text: string
}

/** The extension of ES modules: they work in projects of either kind. */
export function extensionOf({ isTypeScript, isModule }: ProjectKind): string {
  return `${isModule ? '' : 'm'}${isTypeScript ? 'ts' : 'js'}`
}

/** The files of a service with one event and one subscription. */
export function projectFiles(kind: ProjectKind): readonly ProjectFile[] {
  const extension = extensionOf(kind)
  const file = (name: string, text: string): ProjectFile => ({
    path: `${kind.folder}/${name}.${extension}`,
    text,
  })
  return [
    { path: `bossbus.config.${extension}`, text: configText(kind) },
    file('events', eventsText()),
    file('subscriptions', subscriptionsText(kind)),
    file('orders', ordersText(kind)),
    file('main', mainText(kind)),
  ]
}

/** A part that only TypeScript has. */
const typed = ({ isTypeScript }: ProjectKind, text: string): string => (isTypeScript ? text : '')

/** Lines that import. Written so, they are not taken for imports of this file. */
const imports = (...all: readonly (readonly [what: string, from: string])[]): string =>
  all.map(([what, from]) => `import ${what} from '${from}'`).join('\n')

function configText(kind: ProjectKind): string {
  const { folder, source } = kind
  const path = (name: string): string => `./${folder}/${name}.${extensionOf(kind)}`
  return `// What the command \`bossbus\` knows of this service.
${typed(kind, "import type { BossbusConfig } from 'bossbus'\n")}import { events } from '${path('events')}'

export default {
  events,
  source: ${JSON.stringify(source)},
  database: process.env['DATABASE_URL'],
  dev: '${path('main').slice(2)}', // what \`bossbus dev\` runs
}${typed(kind, ' satisfies BossbusConfig')}
`
}

function eventsText(): string {
  return `import { defineEvents } from 'bossbus'
import { z } from 'zod'

/** Every event of this service. The types of publish and of handlers follow from it. */
export const events = defineEvents({
  'order.placed': { schema: z.object({ orderId: z.string(), totalCents: z.number().int() }) },
})
`
}

function subscriptionsText(kind: ProjectKind): string {
  return `import { defineSubscription } from 'bossbus'
import { events } from './events.${extensionOf(kind)}'

/** Handles each order once it is committed. If it throws, it is tried again; after the last attempt it is a dead letter. */
export const confirmOrder = defineSubscription(events, {
  name: 'confirm-order',
  events: ['order.placed'],
  handler: async ({ payload, tenantId }) => {
    console.log(\`confirm order \${payload.orderId} of \${tenantId}: \${payload.totalCents / 100}\`)
  },
})
`
}

function ordersText(kind: ProjectKind): string {
  const imports = `import type { Publisher } from 'bossbus'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { events } from './events.${extensionOf(kind)}'
`
  return `import { randomUUID } from 'node:crypto'
${typed(kind, imports)}import { sql } from 'drizzle-orm'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'

export const orders = pgTable('orders', {
  id: text().primaryKey(),
  tenantId: text('tenant_id').notNull(),
  totalCents: integer('total_cents').notNull(),
})

/** Use the migrations of Drizzle instead. */
export async function createOrders(db${typed(kind, ': PostgresJsDatabase')})${typed(kind, ': Promise<void>')} {
  await db.execute(sql\`create table if not exists orders (id text primary key, tenant_id text not null, total_cents integer not null)\`)
}

/** Stores the order and its event, or neither. */
export async function placeOrder(
  db${typed(kind, ': PostgresJsDatabase')},
  publisher${typed(kind, ': Publisher<typeof events>')},
  { tenantId, totalCents }${typed(kind, ': { readonly tenantId: string; readonly totalCents: number }')},
)${typed(kind, ': Promise<{ readonly orderId: string }>')} {
  const orderId = randomUUID()
  await db.transaction(async (tx) => {
    await tx.insert(orders).values({ id: orderId, tenantId, totalCents })
    await publisher.publish(tx, { type: 'order.placed', tenantId, payload: { orderId, totalCents } })
  })
  return { orderId }
}
`
}

function mainText(kind: ProjectKind): string {
  const { source } = kind
  const extension = extensionOf(kind)
  const declaration = `
declare module 'bossbus/fastify' {
  interface RegisteredBus {
    bus: Bus<typeof events> // types app.bus and request.bus
  }
}
`
  return `${typed(kind, "import type { Bus } from 'bossbus'\n")}${imports(
    ['{ bus as busPlugin }', 'bossbus/fastify'],
    ['{ drizzle }', 'drizzle-orm/postgres-js'],
    ['Fastify', 'fastify'],
    ['postgres', 'postgres'],
    ['{ events }', `./events.${extension}`],
    ['{ createOrders, orders, placeOrder }', `./orders.${extension}`],
    ['{ confirmOrder }', `./subscriptions.${extension}`],
  )}
${typed(kind, declaration)}
const url = process.env['DATABASE_URL']
if (url === undefined) throw new Error('Set DATABASE_URL, or run it with: npx bossbus dev')
const client = postgres(url, { onnotice: () => {} })
const db = drizzle({ client })
await createOrders(db)

const app = Fastify()
app.addHook('onClose', async () => client.end()) // before the bus, so that it runs after it
await app.register(busPlugin, { database: url, events, source: ${JSON.stringify(source)}, migrate: true, closeOnSignals: true })
app.bus.subscribe(confirmOrder)

// curl -X POST localhost:3000/orders -H 'content-type: application/json' -d '{"totalCents":4200}'
app.post${typed(kind, '<{ Body: { readonly totalCents: number } }>')}(
  '/orders',
  {
    schema: {
      body: { type: 'object', required: ['totalCents'], properties: { totalCents: { type: 'integer', minimum: 0 } } },
    },
  },
  async (request, reply) => {
    const order = await placeOrder(db, request.bus, { tenantId: 'acme', totalCents: request.body.totalCents })
    return reply.code(201).send(order)
  },
)

await app.listen({ port: Number(process.env['PORT'] ?? 3000) })

// The first event, so that there is something to see. Remove it.
const [first] = await db.select().from(orders).limit(1)
if (first === undefined) await placeOrder(db, app.bus, { tenantId: 'acme', totalCents: 4200 })
`
}

/** For TypeScript that Node runs by leaving out the types. */
export function tsconfigText(kind: ProjectKind): string {
  const include = [kind.folder, `bossbus.config.${extensionOf(kind)}`]
  return `${JSON.stringify(
    {
      compilerOptions: {
        ...{ module: 'nodenext', target: 'es2023', lib: ['es2023', 'es2024.promise', 'esnext.disposable'] },
        ...{ types: ['node'], strict: true, noUncheckedIndexedAccess: true, verbatimModuleSyntax: true },
        ...{ erasableSyntaxOnly: true, allowImportingTsExtensions: true, skipLibCheck: true, noEmit: true },
      },
      include,
    },
    undefined,
    2,
  )}\n`
}
