/** The version of bossbus, as package.json has it: held together by a test, so that a bundle needs no file. */
export const version = '0.1.0'
