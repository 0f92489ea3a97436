/**
 * The database roles of the bus, of the whole cluster: what each may do stands in drizzle/roles.sql. drizzle-kit has to leave them
 * alone: `entities: { roles: { exclude: [...busRoles] } }`, where it looks after roles.
 */
export const busRoles = ['bus_publisher', 'bus_tenant', 'bus_worker', 'bus_operator'] as const
