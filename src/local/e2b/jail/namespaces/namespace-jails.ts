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
import { type JailMeans, NamespaceJail } from './namespace-jail.js'
import { findToolchain } from './toolchain.js'
import { findTools } from './tools.js'

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

/** What the machine lends to every sandbox. */
interface SharedSystem {
  readonly lines: readonly MountLine[]
  readonly links: readonly TopLink[]
  readonly path: readonly string[]
}

/** Makes jails out of Linux namespaces; needs no rights beyond user namespaces. */
export class NamespaceJails implements JailMaker {
  readonly isolation = 'namespaces'
  readonly path: string
  readonly #folder: string
  readonly #means: JailMeans
  readonly #system: SharedSystem

  private constructor(folder: string, means: JailMeans, system: SharedSystem) {
    this.#folder = folder
    this.#means = means
    this.#system = system
    this.path = system.path.join(':')
  }

  /** Prepares what all sandboxes share in `folder`. */
  static async prepare(folder: string, pipes: Pipes): Promise<NamespaceJails> {
    await mkdir(join(folder, 'mnt'), { recursive: true })
    const [tools, toolchain, { folders, links }] = await Promise.all([
      findTools(),
      findToolchain(),
      findSystem(),
      makeEtc(join(folder, 'etc')),
      makeDev(join(folder, 'dev')),
    ])
    const lines = await sharedLines([...folders, ...toolchain.folders], folder)
    return new NamespaceJails(
      folder,
      { pipes, tools },
      { lines, links, path: [...toolchain.path, ...SYSTEM_PATH] },
    )
  }

  async make({ rootFolder, mounts }: JailSpec): Promise<Jail> {
    const mountPoint = join(this.#folder, 'mnt')
    const lines: MountLine[] = [
      { source: rootFolder, target: '', type: 'none', options: 'rbind,nosuid,nodev', over: 'folder' },
      ...this.#system.lines,
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
    return NamespaceJail.start(tablePath, mountPoint, this.#means)
  }

  /** Everything here goes through {@link SandboxRoot}: when a sandbox is made anew on its old files, those are a sandbox's work. */
  async #layOut(rootFolder: string, lines: readonly MountLine[]): Promise<void> {
    const root = new SandboxRoot(rootFolder)
    for (const folder of OWN_FOLDERS) await ensureFolder(root, folder)
    for (const { name, target } of this.#system.links) await linkOnce(root, name, target)
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
