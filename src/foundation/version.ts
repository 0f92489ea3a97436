/** The version of bossbus, as in package.json. A test compares both, so that a bundle need not read a file. */
export const version = '0.1.0'
