import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** How to get Ceph RGW onto a machine, for messages. */
export const rgwSetupHint = 'run `npm run setup:rgw` (Debian or Ubuntu, no root needed)'

const programs = ['radosgw', 'radosgw-admin', 'ceph-mon', 'ceph-osd', 'monmaptool', 'ceph'] as const
const repository = fileURLToPath(new URL('../../..', import.meta.url))
const triplet = `${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`

/** One of the programs a cluster of one machine consists of. */
export type CephProgram = (typeof programs)[number]

/** Where Ceph is installed or unpacked. */
export interface CephInstallation {
  /** The folder that holds Ceph's plugins. */
  readonly libraries: string
  readonly env: NodeJS.ProcessEnv
  /** The command line that starts a program. */
  command(program: CephProgram): string[]
}

/** Finds Ceph unpacked by `install-rgw.sh`, or installed on the system; undefined when it is neither. */
export function findRgw(): CephInstallation | undefined {
  return findUnpacked(join(repository, '.cache/ceph/root')) ?? findInstalled()
}

function findUnpacked(root: string): CephInstallation | undefined {
  if (!programs.every((program) => existsSync(join(root, 'usr/bin', program)))) return undefined
  const libraries = join(root, 'usr/lib', triplet)
  const systemPython = '/usr/bin/python3'
  // The script's own first line names the system's Python, which the machine may not have.
  const python = existsSync(systemPython) ? systemPython : join(root, 'usr/bin/python3')
  return {
    libraries,
    env: {
      ...process.env,
      PATH: `${join(root, 'usr/bin')}${delimiter}${process.env.PATH ?? ''}`,
      LD_LIBRARY_PATH: [join(root, 'lib', triplet), libraries, join(libraries, 'ceph')].join(delimiter),
      PYTHONPATH: join(root, 'usr/lib/python3/dist-packages'),
    },
    command: (program) => {
      const path = join(root, 'usr/bin', program)
      return program === 'ceph' ? [python, path] : [path]
    },
  }
}

function findInstalled(): CephInstallation | undefined {
  if (!programs.every(isOnPath)) return undefined
  return { libraries: join('/usr/lib', triplet), env: { ...process.env }, command: (program) => [program] }
}

function isOnPath(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
