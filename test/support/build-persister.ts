import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** Bundles the persister from today's source, so that no test runs yesterday's. */
export async function setup(): Promise<void> {
  const bundle = fileURLToPath(new URL('../../src/persister/bundle.mjs', import.meta.url))
  await promisify(execFile)(process.execPath, [bundle])
}
