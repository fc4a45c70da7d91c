import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { thorough } from './thorough.js'

/** Builds the SDK and the persister from today's source, so that no test runs yesterday's. */
export async function setup(): Promise<void> {
  const cwd = fileURLToPath(new URL('../..', import.meta.url))
  if (!thorough)
    console.info(
      'left out: other shells and a second S3 server in many suites, second rounds of some others; npm run test:all has them',
    )
  const run = promisify(execFile)
  await run(process.execPath, ['src/persister/bundle.mjs'], { cwd })
  await run('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { cwd })
}
