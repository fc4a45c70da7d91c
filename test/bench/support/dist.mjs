import { fileURLToPath } from 'node:url'

const dist = new URL('../../../dist/', import.meta.url)

/** The installed program. */
export const PERSIST_RESULT = fileURLToPath(new URL('persist-result/persist-result', dist))

/**
 * A module of the compiled SDK.
 *
 * @param {string} path relative to `dist/`
 */
export function compiled(path) {
  return new URL(path, dist).href
}
