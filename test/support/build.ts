import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** Builds the SDK and the persister from today's source, so that no test runs yesterday's. */
export async function setup(): Promise<void> {
  const cwd = fileURLToPath(new URL('../..', import.meta.url))
  if (!process.env.TEST_ALL) console.info('left out: dash in the suites of faults; npm run test:all has it')
  const run = promisify(execFile)
  await run(process.execPath, ['src/persister/bundle.mjs'], { cwd })
  await run('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { cwd })
}
