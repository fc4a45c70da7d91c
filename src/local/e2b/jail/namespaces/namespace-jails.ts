import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { ensureFolder, writeFile as writeInside } from '../../files/file-operations.js'
import { SandboxRoot } from '../../files/sandbox-root.js'
import { errnoOf } from '../../request-error.js'
import type { Jail, JailMaker, JailSpec } from '../jail.js'
import type { Pipes } from '../pipes.js'
import { makeEtc, refreshResolver } from './etc.js'
import {
  DEV_SKELETON,
  findSystem,
  formatMountTable,
  type MountLine,
  sharedLines,
  type TopLink,
} from './mount-table.js'
import { NamespaceJail } from './namespace-jail.js'
import { findToolchain } from './toolchain.js'

const OWN_FOLDERS = [
  '/workspace',
  '/home/user',
  '/root',
  '/tmp',
  '/var/tmp',
  '/var/log',
  '/run',
  '/srv',
  '/mnt',
  '/media',
]
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']

/** Makes jails out of Linux namespaces; needs no rights beyond user namespaces. */
export class NamespaceJails implements JailMaker {
  readonly isolation = 'namespaces'
  readonly path: string
  readonly #folder: string
  readonly #pipes: Pipes
  readonly #shared: readonly MountLine[]
  readonly #links: readonly TopLink[]

  private constructor(
    folder: string,
    pipes: Pipes,
    path: readonly string[],
    shared: readonly MountLine[],
    links: readonly TopLink[],
  ) {
    this.#folder = folder
    this.#pipes = pipes
    this.path = path.join(':')
    this.#shared = shared
    this.#links = links
  }

  /** Prepares what all sandboxes share in `folder`. */
  static async prepare(folder: string, pipes: Pipes): Promise<NamespaceJails> {
    await mkdir(join(folder, 'mnt'), { recursive: true })
    const [toolchain, system] = await Promise.all([
      findToolchain(),
      findSystem(),
      makeEtc(join(folder, 'etc')),
      makeDev(join(folder, 'dev')),
    ])
    const shared = await sharedLines([...system.folders, ...toolchain.folders], folder)
    return new NamespaceJails(folder, pipes, [...toolchain.path, ...SYSTEM_PATH], shared, system.links)
  }

  async make({ rootFolder, mounts }: JailSpec): Promise<Jail> {
    const mountPoint = join(this.#folder, 'mnt')
    const lines: MountLine[] = [
      { source: rootFolder, target: '', type: 'none', options: 'rbind,nosuid,nodev', over: 'folder' },
      ...this.#shared,
      ...mounts.map(({ source, path }) => ({
        source,
        target: path,
        type: 'none',
        options: 'bind,nosuid,nodev',
        over: 'folder' as const,
      })),
    ]
    await this.#layOut(rootFolder, lines)
    await refreshResolver(join(this.#folder, 'etc'))
    const tablePath = `${rootFolder}.mounts`
    await writeFile(tablePath, formatMountTable(lines, mountPoint))
    return NamespaceJail.start(tablePath, mountPoint, this.#pipes)
  }

  /** Everything here goes through {@link SandboxRoot}: when a sandbox is made anew on its old files, those are a sandbox's work. */
  async #layOut(rootFolder: string, lines: readonly MountLine[]): Promise<void> {
    const root = new SandboxRoot(rootFolder)
    for (const folder of OWN_FOLDERS) await ensureFolder(root, folder)
    for (const { name, target } of this.#links) await linkOnce(root, name, target)
    for (const { target, over } of lines) {
      if (target === '' || target.startsWith('/dev/')) continue
      if (over === 'folder') await ensureFolder(root, target)
      else await writeInside(root, target, Readable.from([]))
    }
  }
}

async function linkOnce(root: SandboxRoot, name: string, target: string): Promise<void> {
  await root.at(`/${name}`, { follow: false }, async ({ at, stat }) => {
    if (stat === undefined) await symlink(target, at)
  })
}

async function makeDev(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const name of DEV_SKELETON.folders) await mkdir(join(folder, name), { recursive: true })
  for (const name of DEV_SKELETON.files) await writeFile(join(folder, name), '')
  for (const [name, target] of Object.entries(DEV_SKELETON.links)) {
    try {
      await symlink(target, join(folder, name))
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
  }
}
