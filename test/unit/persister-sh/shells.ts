import { fileURLToPath } from 'node:url'
import { findProgram } from '../../support/find-program.js'
import { leaveOut } from '../../support/leave-out.js'
import { choose, last } from '../../support/thorough.js'

/** The shell implementation, put together by the global setup of the tests. */
export const SCRIPT = fileURLToPath(
  new URL('../../../dist/persist-result/persist-result.sh', import.meta.url),
)

/** A shell that has to run the script. */
export interface Shell {
  readonly name: string
  /** Program and arguments before the script's path. */
  readonly argv: readonly string[]
}

function installed(name: string, ...args: readonly string[]): Shell[] {
  const path = findProgram(name)
  if (path !== undefined) return [{ name, argv: [path, ...args] }]
  leaveOut(`persist-result.sh with ${name}`, 'it is not installed')
  return []
}

/** Every shell that the script is made for, as far as this machine has it. */
export const allShells: readonly Shell[] = [
  ...installed('dash'),
  ...installed('bash'),
  ...installed('busybox', 'sh'),
]

/** Those that suites of the script's parts run under: the one that differs most, and every one when everything runs. */
export const shells = choose(allShells, last)
