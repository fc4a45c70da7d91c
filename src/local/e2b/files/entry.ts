import type { BigIntStats } from 'node:fs'
import { errnoOf, RequestError } from '../request-error.js'
import type { SandboxRoot } from './sandbox-root.js'

/** `filesystem.EntryInfo` of envd's protocol, in its JSON form. */
export interface EntryInfo {
  readonly name: string
  readonly type: string
  readonly path: string
  /** 64-bit, hence text. */
  readonly size: string
  readonly mode: number
  readonly permissions: string
  readonly owner: string
  readonly group: string
  readonly modifiedTime: string
  readonly symlinkTarget?: string
  readonly metadata?: Readonly<Record<string, string>>
}

/** Describes what lies at a place; like envd, `type` and `mode` are those of a link's target and `permissions` the link's own. */
export async function describeEntry(
  root: SandboxRoot,
  path: string,
  stat: BigIntStats,
  metadataOf: (stat: BigIntStats) => Readonly<Record<string, string>> | undefined,
): Promise<EntryInfo> {
  const target = stat.isSymbolicLink() ? await targetOf(root, path) : undefined
  const effective = target?.stat ?? stat
  const metadata = metadataOf(effective)
  const owner = ownerOf(stat)
  return {
    name: path.slice(path.lastIndexOf('/') + 1) || '/',
    type: typeOf(effective),
    path,
    size: String(stat.size),
    mode: Number(effective.mode & 0o7777n),
    permissions: permissionsOf(stat),
    owner,
    group: owner,
    modifiedTime: new Date(Number(stat.mtimeMs)).toISOString(),
    ...(target === undefined ? {} : { symlinkTarget: target.path }),
    ...(metadata === undefined ? {} : { metadata }),
  }
}

interface Target {
  readonly path: string
  readonly stat: BigIntStats | undefined
}

/** Where a link ends; undefined when it leads nowhere. */
async function targetOf(root: SandboxRoot, path: string): Promise<Target | undefined> {
  try {
    return await root.at(path, {}, async ({ path, stat }) => ({ path, stat }))
  } catch (error) {
    if (error instanceof RequestError || errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function typeOf(stat: BigIntStats): string {
  if (stat.isDirectory()) return 'FILE_TYPE_DIRECTORY'
  if (stat.isFile()) return 'FILE_TYPE_FILE'
  return stat.isSymbolicLink() ? 'FILE_TYPE_SYMLINK' : 'FILE_TYPE_UNSPECIFIED'
}

/** Everything a sandbox makes belongs to the server's own user, whoever it was inside; what is bound in from the machine does not. */
function ownerOf(stat: BigIntStats): string {
  return Number(stat.uid) === process.getuid?.() ? 'user' : 'root'
}

/** Mode as Go prints it, which is what envd sends: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`. */
function permissionsOf(stat: BigIntStats): string {
  const bits = [...'rwxrwxrwx']
    .map((letter, i) => ((stat.mode >> BigInt(8 - i)) & 1n ? letter : '-'))
    .join('')
  const mode = stat.mode
  const special = [
    stat.isDirectory() ? 'd' : '',
    stat.isSymbolicLink() ? 'L' : '',
    stat.isCharacterDevice() || stat.isBlockDevice() ? 'D' : '',
    stat.isFIFO() ? 'p' : '',
    stat.isSocket() ? 'S' : '',
    mode & 0o4000n ? 'u' : '',
    mode & 0o2000n ? 'g' : '',
    stat.isCharacterDevice() ? 'c' : '',
    mode & 0o1000n ? 't' : '',
  ].join('')
  return `${special || '-'}${bits}`
}
