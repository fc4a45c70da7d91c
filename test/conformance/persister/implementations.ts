import { BUNDLE } from '../../support/persister/program.js'
import { SCRIPT, shells } from '../../unit/persister-sh/shells.js'

/** A program that has to behave as the suite says. */
export interface Implementation {
  readonly name: string
  readonly argv: readonly string[]
}

// What bash reads otherwise than dash lies in the parts that test/unit/persister-sh runs under all three.
const suiteShells = shells.filter(({ name }) => name !== 'bash')

/** Every implementation of persist-result; the shell's under two shells that share no code. */
export const implementations: readonly Implementation[] = [
  { name: 'node', argv: [process.execPath, BUNDLE] },
  ...suiteShells.map(({ name, argv }) => ({ name, argv: [...argv, SCRIPT] })),
]
