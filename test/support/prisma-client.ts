import { createRequire } from 'node:module'
import { PrismaPg } from '@prisma/adapter-pg'
import { getPrismaClient, type GetPrismaClientConfig } from '@prisma/client/runtime/client'

/** Neither has types. */
const load = createRequire(import.meta.url) as (id: string) => unknown
const { WebAssembly } = globalThis as unknown as {
  readonly WebAssembly: { readonly Module: new (bytes: Buffer) => unknown }
}

const model = `datasource db {
  provider = "postgresql"
}

model Payment {
  id     String @id
  status String

  @@map("payments")
}
`

/** What `prisma generate` 7.10 writes of the model above. Written down, because its generator downloads programs that nothing here uses. */
const config = {
  previewFeatures: [],
  clientVersion: '7.10.0',
  engineVersion: '0edf323efd1d98336f3f0a68684b56f689b900d3',
  activeProvider: 'postgresql',
  inlineSchema: model,
  runtimeDataModel: {
    models: {
      Payment: {
        fields: [
          { name: 'id', kind: 'scalar', type: 'String' },
          { name: 'status', kind: 'scalar', type: 'String' },
        ],
        dbName: 'payments',
        schema: null,
      },
    },
    enums: {},
    types: {},
  },
  parameterizationSchema: {
    strings: [
      'where',
      'Payment.findUnique',
      'Payment.findUniqueOrThrow',
      'orderBy',
      'cursor',
      'Payment.findFirst',
      'Payment.findFirstOrThrow',
      'Payment.findMany',
      'data',
      'Payment.createOne',
      'Payment.createMany',
      'Payment.createManyAndReturn',
      'Payment.updateOne',
      'Payment.updateMany',
      'Payment.updateManyAndReturn',
      'create',
      'update',
      'Payment.upsertOne',
      'Payment.deleteOne',
      'Payment.deleteMany',
      'having',
      '_count',
      '_min',
      '_max',
      'Payment.groupBy',
      'Payment.aggregate',
      'AND',
      'OR',
      'NOT',
      'id',
      'status',
      'equals',
      'in',
      'notIn',
      'lt',
      'lte',
      'gt',
      'gte',
      'contains',
      'startsWith',
      'endsWith',
      'not',
      'set',
    ],
    graph:
      'JAkQBRoAAB8AMBsAAAQAEBwAAB8AMB0BAAAAAR4BACAAIQEAAAABACABAAAAAQAgBRoAAB8AMBsAAAQAEBwAAB8AMB0BACAAIR4BACAAIQADAAAABAAgAwAABQAwBAAAAQAgAwAAAAQAIAMAAAUAMAQAAAEAIAMAAAAEACADAAAFADAEAAABACACHQEAAAABHgEAAAABAQgAAAkAIAIdAQAAAAEeAQAAAAEBCAAACwAwAQgAAAsAMAIdAQAkACEeAQAkACECAAAAAQAgCAAADgAgAh0BACQAIR4BACQAIQIAAAAEACAIAAAQACACAAAABAAgCAAAEAAgAwAAAAEAIA8AAAkAIBAAAA4AIAEAAAABACABAAAABAAgAxUAACEAIBYAACMAIBcAACIAIAUaAAAaADAbAAAXABAcAAAaADAdAQAbACEeAQAbACEDAAAABAAgAwAAFgAwFAAAFwAgAwAAAAQAIAMAAAUAMAQAAAEAIAUaAAAaADAbAAAXABAcAAAaADAdAQAbACEeAQAbACEOFQAAHQAgFgAAHgAgFwAAHgAgHwEAAAABIAEAAAAEIQEAAAAEIgEAAAABIwEAAAABJAEAAAABJQEAAAABJgEAAAABJwEAAAABKAEAAAABKQEAHAAhDhUAAB0AIBYAAB4AIBcAAB4AIB8BAAAAASABAAAABCEBAAAABCIBAAAAASMBAAAAASQBAAAAASUBAAAAASYBAAAAAScBAAAAASgBAAAAASkBABwAIQgfAgAAAAEgAgAAAAQhAgAAAAQiAgAAAAEjAgAAAAEkAgAAAAElAgAAAAEpAgAdACELHwEAAAABIAEAAAAEIQEAAAAEIgEAAAABIwEAAAABJAEAAAABJQEAAAABJgEAAAABJwEAAAABKAEAAAABKQEAHgAhBRoAAB8AMBsAAAQAEBwAAB8AMB0BACAAIR4BACAAIQsfAQAAAAEgAQAAAAQhAQAAAAQiAQAAAAEjAQAAAAEkAQAAAAElAQAAAAEmAQAAAAEnAQAAAAEoAQAAAAEpAQAeACEAAAABKgEAAAABAAAAAAMVAAYWAAcXAAgAAAADFQAGFgAHFwAIAQIBAgMBBQYBBgcBBwgBCQoBCgwCCw0DDA8BDRECDhIEERMBEhQBExUCGBgFGRkJ',
  },
  compilerWasm: {
    getRuntime: async () => load('@prisma/client/runtime/query_compiler_fast_bg.postgresql.js'),
    getQueryCompilerWasmModule: async () => {
      const { wasm } = load('@prisma/client/runtime/query_compiler_fast_bg.postgresql.wasm-base64.js') as {
        readonly wasm: string
      }
      return new WebAssembly.Module(Buffer.from(wasm, 'base64'))
    },
    importName: './query_compiler_fast_bg.js',
  },
}

/** What of the generated client the tests use. */
export interface TestPrisma {
  readonly $connect: () => Promise<void>
  readonly $disconnect: () => Promise<void>
  readonly $queryRawUnsafe: (query: string, ...values: unknown[]) => PromiseLike<unknown>
  readonly $transaction: <T>(work: (tx: TestPrismaTransaction) => Promise<T>) => Promise<T>
  readonly $extends: (extension: object) => TestPrisma
}

export interface TestPrismaTransaction extends Pick<TestPrisma, '$transaction' | '$queryRawUnsafe'> {
  readonly payment: { readonly create: (query: { readonly data: object }) => Promise<unknown> }
}

/** A client of Prisma 7: its query compiler in WebAssembly, and node-postgres. */
export function openPrisma(connectionString: string, max: number): TestPrisma {
  const Client = getPrismaClient(config as unknown as GetPrismaClientConfig) as unknown as new (
    options: object,
  ) => TestPrisma
  return new Client({ adapter: new PrismaPg({ connectionString, max }) })
}
