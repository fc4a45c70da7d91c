import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { BUNDLE } from '../../support/persister/program.js'
import { choose } from '../../support/thorough.js'
import { allShells, findProgram, SCRIPT, type Shell } from '../../unit/persister-sh/shells.js'

/** A program that has to behave as the suite says. */
export interface Implementation {
  readonly name: string
  readonly argv: readonly string[]
}

/**
 * What a small image has besides BusyBox: no GNU tool, no Perl. BusyBox's awk takes seconds for a megabyte of JSON, so only
 * test/unit/persister-sh has it.
 */
const BESIDE_BUSYBOX = ['curl', 'openssl', 'awk']

/** A folder with nothing but BusyBox's own tools, as images have them that are made of it. */
function busyboxTools(busybox: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'persister-busybox-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trimEnd().split('\n')
  for (const name of applets) {
    if (!BESIDE_BUSYBOX.includes(name)) symlinkSync(busybox, join(folder, name))
  }
  for (const name of BESIDE_BUSYBOX) {
    const path = findProgram(name)
    if (path === undefined) throw new Error(`${name} is not installed`)
    symlinkSync(path, join(folder, name))
  }
  return folder
}

function withTools({ name, argv }: Shell): Implementation {
  const [program = ''] = argv
  const tools = name === 'busybox' ? ['/usr/bin/env', `PATH=${busyboxTools(program)}`] : []
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
