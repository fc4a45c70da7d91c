import { fileURLToPath } from 'node:url'

const dist = new URL('../../../dist/', import.meta.url)

/** The persister for Node, without the launcher that goes before it. */
export const BUNDLE = fileURLToPath(new URL('persist-result/persist-result.js', dist))

/** The persister for a shell. */
export const SCRIPT = fileURLToPath(new URL('persist-result/persist-result.sh', dist))

/**
 * A module of the compiled SDK.
 *
 * @param {string} path relative to `dist/`
 */
export function compiled(path) {
  return new URL(path, dist).href
}
