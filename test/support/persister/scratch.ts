import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'vitest'

/** What tests hand to helpers that have to clean up after them; with it tests may run side by side. */
export type Cleanup = Pick<TestContext, 'onTestFinished'>

/** A folder of one test's own, removed when it is over. */
export async function scratch({ onTestFinished }: Cleanup): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'persister-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}
