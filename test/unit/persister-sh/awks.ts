import { readFileSync } from 'node:fs'
import { findProgram } from '../../support/find-program.js'
import { leaveOut } from '../../support/leave-out.js'
import { choose } from '../../support/thorough.js'
import { SCRIPT } from './shells.js'

/** The script's awk program, as its shell hands it over. */
export function awkProgram(): string {
  const match = /^AWK='([^']*)'$/m.exec(readFileSync(SCRIPT, 'utf8'))
  if (match?.[1] === undefined) throw new Error('persist-result.sh has no awk program any more')
  return match[1]
}

/** The awks of Linux images, as far as this machine has them; they differ in what they call a character, a regular expression and a limit. */
export const awks: readonly { readonly name: string; readonly argv: readonly string[] }[] = choose(
  [
    { name: 'mawk', argv: [] as string[] },
    { name: 'gawk', argv: [] as string[] },
    { name: 'busybox', argv: ['awk'] },
  ].flatMap(({ name, argv }) => {
    const path = findProgram(name)
    if (path !== undefined) return [{ name, argv: [path, ...argv] }]
    leaveOut(`persist-result.sh with ${name}'s awk`, 'it is not installed')
    return []
  }),
  ({ name }) => name !== 'gawk',
)
