import { lstat, readFile, readlink } from 'node:fs/promises'
import { errnoOf } from '../../request-error.js'

/** A line of a mount table, with the target as the sandbox will see it. */
export interface MountLine {
  readonly source: string
  readonly target: string
  readonly type: string
  readonly options: string
  /** What to lay under it in the sandbox's root. */
  readonly over: 'folder' | 'file'
}

/** A name at the top of the machine's file system that is a link, as /bin is to usr/bin. */
export interface TopLink {
  readonly name: string
  readonly target: string
}

/** Paths of the machine's system that sandboxes see, read-only. */
const SYSTEM = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/opt', '/nix', '/gnu']
const DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty']

/** Which parts of the system to bind and which are only links into those. */
export async function findSystem(): Promise<{ folders: string[]; links: TopLink[] }> {
  const folders: string[] = []
  const links: TopLink[] = []
  for (const path of SYSTEM) {
    try {
      const stat = await lstat(path)
      if (stat.isSymbolicLink()) links.push({ name: path.slice(1), target: await readlink(path) })
      else if (stat.isDirectory()) folders.push(path)
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
  return { folders, links }
}

/** The lines every sandbox has: the system, its own /proc and /dev. `skeleton` holds the shared `etc` and `dev`. */
export async function sharedLines(folders: readonly string[], skeleton: string): Promise<MountLine[]> {
  const submounts = await readMountPoints()
  const bound = folders.flatMap((folder) => [
    folder,
    // Each mount has its own read-only switch.
    ...submounts.filter((point) => point.startsWith(`${folder}/`)),
  ])
  const lines: MountLine[] = []
  for (const path of bound) lines.push(await readOnly(path, path))
  lines.push(await readOnly(`${skeleton}/etc`, '/etc'))
  lines.push({
    source: 'proc',
    target: '/proc',
    type: 'proc',
    options: 'nosuid,nodev,noexec',
    over: 'folder',
  })
  lines.push(await readOnly(`${skeleton}/dev`, '/dev'))
  for (const name of DEVICES) {
    // The file under it is in the skeleton.
    lines.push({
      source: `/dev/${name}`,
      target: `/dev/${name}`,
      type: 'none',
      options: 'bind',
      over: 'file',
    })
  }
  lines.push({
    source: 'devpts',
    target: '/dev/pts',
    type: 'devpts',
    options: 'newinstance,ptmxmode=0666,mode=0600',
    over: 'folder',
  })
  lines.push({
    source: 'tmpfs',
    target: '/dev/shm',
    type: 'tmpfs',
    options: 'nosuid,nodev,mode=1777',
    over: 'folder',
  })
  return lines
}

/** Names that {@link sharedLines} expects in the skeleton's `dev`. */
export const DEV_SKELETON = {
  files: DEVICES,
  folders: ['pts', 'shm'],
  links: {
    fd: '/proc/self/fd',
    stdin: '/proc/self/fd/0',
    stdout: '/proc/self/fd/1',
    stderr: '/proc/self/fd/2',
    ptmx: 'pts/ptmx',
  },
} as const

async function readOnly(source: string, target: string): Promise<MountLine> {
  const over = (await lstat(source)).isDirectory() ? 'folder' : 'file'
  return { source, target, type: 'none', options: `rbind,ro,nosuid,nodev${await lockedFlags(source)}`, over }
}

/** A user namespace may not take this flag off a mount it got from outside, so it has to be repeated. */
async function lockedFlags(source: string): Promise<string> {
  const mount = (await readMounts())
    .filter(({ point }) => point === '/' || source === point || source.startsWith(`${point}/`))
    .reduce((best, one) => (one.point.length >= best.point.length ? one : best))
  return mount.options.includes('noexec') ? ',noexec' : ''
}

interface KnownMount {
  readonly point: string
  readonly options: readonly string[]
}

async function readMounts(): Promise<KnownMount[]> {
  return (await readFile('/proc/self/mountinfo', 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, , , , point = '', options = ''] = line.split(' ')
      return { point: unescapeField(point), options: options.split(',') }
    })
}

async function readMountPoints(): Promise<string[]> {
  return (await readMounts()).map(({ point }) => point)
}

/** The text of a mount table for mount(8), everything below `mountPoint`. */
export function formatMountTable(lines: readonly MountLine[], mountPoint: string): string {
  return lines
    .map(({ source, target, type, options }) =>
      [escapeField(source), escapeField(`${mountPoint}${target}`), type, options, '0', '0'].join(' '),
    )
    .join('\n')
    .concat('\n')
}

/** Blank, tab, newline, backslash and a leading hash are written in octal, see fstab(5). */
function escapeField(path: string): string {
  return path.replace(/[\s\\#]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`)
}

function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
