import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { findProgram } from './find-program.js'

declare module 'vitest' {
  interface ProvidedContext {
    /** A folder with nothing but BusyBox's own tools; empty where there is no BusyBox. */
    busyboxTools: string
  }
}

/**
 * What a small image has besides BusyBox: no GNU tool, no Perl. BusyBox's awk takes seconds for a megabyte of JSON, so only
 * test/unit/persister-sh has it.
 */
const BESIDE_BUSYBOX = ['curl', 'openssl', 'awk']

/** Makes a folder of tools as images have them that are made of BusyBox, once for the whole run. Returns the teardown. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const busybox = findProgram('busybox')
  if (busybox === undefined) {
    project.provide('busyboxTools', '')
    return async () => {}
  }
  const folder = await mkdtemp(join(tmpdir(), 'persister-busybox-'))
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trimEnd().split('\n')
  for (const name of applets) {
    if (!BESIDE_BUSYBOX.includes(name)) await symlink(busybox, join(folder, name))
  }
  for (const name of BESIDE_BUSYBOX) {
    const path = findProgram(name)
    if (path === undefined) throw new Error(`${name} is not installed`)
    await symlink(path, join(folder, name))
  }
  project.provide('busyboxTools', folder)
  return () => rm(folder, { recursive: true, force: true })
}
