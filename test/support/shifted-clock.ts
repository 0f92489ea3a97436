/** Sets the clock of this process wrong, by the milliseconds that its second argument says. To be imported first. */
const shiftMs = Number(process.argv[3])
const RealDate = Date

globalThis.Date = class extends RealDate {
  constructor(...args: [] | [string | number | Date]) {
    if (args.length === 0) super(RealDate.now() + shiftMs)
    else super(args[0])
  }

  static override now(): number {
    return RealDate.now() + shiftMs
  }
} as DateConstructor
