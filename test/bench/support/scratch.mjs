import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Lends a folder that is gone afterwards.
 *
 * @template T
 * @param {(folder: string) => Promise<T>} use
 */
export async function withScratch(use) {
  const folder = await mkdtemp(join(tmpdir(), 'stu-conductor-bench-'))
  try {
    return await use(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
