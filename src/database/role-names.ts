/**
 * The database roles of the bus, shared by the whole cluster; drizzle/roles.sql grants their privileges. If drizzle-kit
 * manages your roles, exclude these: `entities: { roles: { exclude: [...busRoles] } }`.
 */
export const busRoles = ['bus_publisher', 'bus_tenant', 'bus_worker', 'bus_operator'] as const
