let parts: ReturnType<typeof importParts> | undefined

/** What makes a Drizzle handle of a connection. Loaded with the first call: it takes 100 MB that little else here needs. */
export async function loadDrizzleParts() {
  parts ??= importParts()
  return parts
}

async function importParts() {
  const [{ NodePgSession, NodePgTransaction }, { PgDialect }] = await Promise.all([
    import('drizzle-orm/node-postgres'),
    import('drizzle-orm/pg-core'),
  ])
  return { NodePgSession, NodePgTransaction, dialect: new PgDialect() }
}
