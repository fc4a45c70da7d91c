/**
 * What a file in `entries/` exports as `entry`. It is named after its file; one is measured at a time.
 *
 * @typedef {object} Entry
 * @property {string} what What is compared with what, in one line.
 * @property {() => Promise<string | undefined>} [missing] Says what this machine lacks for it.
 * @property {() => Promise<Measure[]>} run Cleans up after itself.
 */

/**
 * One number and the bound it must keep, if it has one.
 *
 * @typedef {object} Measure
 * @property {string} name Appended to the entry's; empty where the entry has one measure only.
 * @property {number} value At most `bound`, or it is not met.
 * @property {number} [bound] Undefined for what only explains another.
 * @property {'x' | 'ms' | 'KB' | 'MB' | 'requests'} unit `x` is a ratio of medians.
 * @property {string} detail What went into it.
 */

/** @typedef {Measure | { name: string, skipped: string } | { name: string, crashed: string }} Outcome */

export {}
