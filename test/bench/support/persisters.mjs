import { BUNDLE, SCRIPT } from './dist.mjs'

/**
 * An implementation of persist-result, and what it has promised.
 *
 * @typedef {object} Persister
 * @property {string} name
 * @property {readonly [string, ...string[]]} argv
 * @property {Bounds} bounds
 *
 * @typedef {object} Bounds
 * @property {number} aws A small file : `aws s3 cp` of it.
 * @property {number} big A file of 1 GB : `curl -T` of it.
 * @property {number} bigMegabytes Peak memory over that.
 * @property {number} directory 10,000 small files : `tar czf - | curl -T -` of them.
 */

/** Every implementation that the entries measure. @type {readonly Persister[]} */
const persisters = [
  {
    name: 'node',
    argv: [process.execPath, BUNDLE],
    bounds: { aws: 1 / 4, big: 2, bigMegabytes: 120, directory: 1.3 },
  },
  {
    name: 'sh',
    argv: ['sh', SCRIPT],
    bounds: { aws: 1 / 10, big: 2, bigMegabytes: 30, directory: 1.3 },
  },
]

/**
 * A command line that stores a path and fails unless S3 has it. Whoever measures many of them gives each a name of its own:
 * one name is stored once a second, so that others would first have to look for a second that is free.
 *
 * @param {Persister} persister
 * @param {string} path
 * @param {string} [name]
 * @returns {[string, ...string[]]}
 */
export function storeToS3({ argv: [file, ...args] }, path, name) {
  return [file, ...args, '--quiet', '--require', 's3', ...(name === undefined ? [] : ['--name', name]), path]
}

/**
 * Does the same for each implementation, one after the other.
 *
 * @template T
 * @param {(persister: Persister) => Promise<T[]>} measure
 */
export async function forEachPersister(measure) {
  const all = []
  for (const persister of persisters) all.push(...(await measure(persister)))
  return all
}
