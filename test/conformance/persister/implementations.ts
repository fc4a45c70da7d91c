import { inject } from 'vitest'
import { BUNDLE } from '../../support/persister/program.js'
import { choose } from '../../support/thorough.js'
import { allShells, SCRIPT, type Shell } from '../../unit/persister-sh/shells.js'

/** A program that has to behave as the suite says. */
export interface Implementation {
  readonly name: string
  readonly argv: readonly string[]
}

function withTools({ name, argv }: Shell): Implementation {
  const tools = name === 'busybox' ? ['/usr/bin/env', `PATH=${inject('busyboxTools')}`] : []
  return { name, argv: [...tools, ...argv, SCRIPT] }
}

// What bash reads otherwise than dash lies in the parts that test/unit/persister-sh runs under all three.
const suiteShells = allShells.filter(({ name }) => name !== 'bash')

/** Every implementation of persist-result; the shell's under two shells that share no code, nor any tool but these. */
export const implementations: readonly Implementation[] = [
  { name: 'node', argv: [process.execPath, BUNDLE] },
  ...suiteShells.map(withTools),
]

/** Those that suites of faults run with: dash shares BusyBox's code but for the tools that it calls. */
export const faultedImplementations = choose(implementations, ({ name }) => name !== 'dash')
