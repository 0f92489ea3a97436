/** The command cannot be run as requested. The message is for the person who invoked it. */
export class UsageError extends Error {}

/** A person has said no. Nothing was changed. */
export class Declined extends Error {}
