import { BUNDLE } from '../../support/persister/program.js'
import { SCRIPT, shells } from '../../unit/persister-sh/shells.js'

/** A program that has to behave as the suite says. */
export interface Implementation {
  readonly name: string
  readonly argv: readonly string[]
}

/** Every implementation of persist-result. */
export const implementations: readonly Implementation[] = [
  { name: 'node', argv: [process.execPath, BUNDLE] },
  ...shells.map(({ name, argv }) => ({ name, argv: [...argv, SCRIPT] })),
]
