import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, readlink, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { extract } from 'tar-stream'
import { describe, expect, it } from 'vitest'
import { packTar } from '../../../src/persister/source/tar.js'
import { tarHeader } from '../../../src/persister/source/tar-header.js'
import { BUNDLE, bareEnvironment, type RunResult, run } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'

const exec = promisify(execFile)
const HOOK = fileURLToPath(new URL('../../support/persister/read-hook.cjs', import.meta.url))

async function isThere([file = '', ...args]: readonly string[]): Promise<boolean> {
  return await exec(file, args).then(
    () => true,
    () => false,
  )
}

/** Programs that unpack, by what they are called with; the archive's path and the folder follow. */
const candidates = [
  { name: 'GNU tar', probe: ['tar', '--version'], argv: ['tar', '-xpf'], into: '-C' },
  { name: 'bsdtar', probe: ['bsdtar', '--version'], argv: ['bsdtar', '-xpf'], into: '-C' },
  {
    name: 'tarfile of Python',
    probe: ['python3', '-c', 'import tarfile'],
    argv: ['python3', '-c', 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[3])'],
    into: '-C',
  },
]
const unpackers: (typeof candidates)[number][] = []
for (const candidate of candidates) {
  if (await isThere(candidate.probe)) unpackers.push(candidate)
  else console.warn(`left out: archives are not held against ${candidate.name}, which is not on this machine`)
}

const LONG = 'long-'.repeat(40)
const DEEP = `${'a'.repeat(90)}/${'b'.repeat(90)}/${'c'.repeat(200)}`
const FILES = [
  'plain.txt',
  'ünï 日本 \u{1f600}.txt',
  LONG,
  `${'x'.repeat(85)}/${'y'.repeat(60)}/split-at-a-slash`,
  DEEP,
  `${'é'.repeat(60)}/${'ü'.repeat(100)}`,
]

/** Names that are no UTF-8; the long one needs an extended header. */
const RAW = ['caf\xe9.txt', `${'\xff'.repeat(150)}.txt`]

async function plant(test: Cleanup): Promise<{ folder: string; tree: string }> {
  const folder = await scratch(test)
  const tree = join(folder, 'tree')
  for (const name of FILES) {
    await mkdir(join(tree, name, '..'), { recursive: true })
    await writeFile(join(tree, name), `content of ${name}`)
  }
  for (const name of RAW) await writeFile(Buffer.from(join(tree, name), 'latin1'), name)
  await writeFile(join(tree, 'big'), Buffer.alloc(1_500_001, 'big'))
  await writeFile(join(tree, 'page'), Buffer.alloc(4096, 'p'))
  await writeFile(join(tree, 'empty'), '')
  await symlink(`/${LONG}/${LONG}`, join(tree, 'link'))
  // Node takes a negative time for today.
  await exec('touch', ['-d', '1969-12-31T00:00:00Z', join(tree, 'plain.txt')])
  return { folder, tree }
}

async function packToFile(tree: string, path: string): Promise<string[]> {
  const warnings: string[] = []
  const chunks: Buffer[] = []
  for await (const piece of packTar(tree, 'tree', (line) => warnings.push(line)))
    chunks.push(Buffer.from(piece))
  await writeFile(path, Buffer.concat(chunks))
  return warnings
}

/** Stores a folder's `tree` by the program, on a file system that the hook makes of this one. */
async function store(folder: string, env: Readonly<Record<string, string>>): Promise<RunResult> {
  return await run([process.execPath, '-r', HOOK, BUNDLE, '-q', 'tree'], {
    cwd: folder,
    env: { WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), ...env },
  })
}

describe('an archive', () => {
  it.each(unpackers)('is unpacked by $name as it was', async ({ argv, into }) => {
    await using cleanup = makeCleanup()
    const { folder, tree } = await plant(cleanup)
    const archive = join(folder, 'tree.tar')
    expect(await packToFile(tree, archive)).toEqual([])
    await mkdir(join(folder, 'out'))
    const [file = '', ...args] = argv
    const env = { ...process.env, LC_ALL: 'C.UTF-8' }
    await exec(file, [...args, archive, into, join(folder, 'out')], { env })
    await exec('diff', ['-r', '--no-dereference', tree, join(folder, 'out/tree')])
    expect(await readlink(join(folder, 'out/tree/link'))).toBe(`/${LONG}/${LONG}`)
    expect((await stat(join(folder, 'out/tree/plain.txt'))).mtimeMs).toBe(-86_400_000)
  })

  it('keeps sizes from 8 GiB on', async () => {
    const sizeBytes = 9 * 2 ** 30
    const entry = { name: 'huge', kind: 'file', mode: 0o644, mtimeSeconds: 1, sizeBytes } as const
    const header = Buffer.from(tarHeader({ ...entry, isAscii: true }))
    expect(header).toHaveLength(1536)
    const seen = await new Promise((done) => {
      const reader = extract()
      reader.on('entry', (found) => done(found))
      reader.write(header)
    })
    expect(seen).toMatchObject({ name: 'huge', size: sizeBytes })
  })

  it('of a file that shrinks meanwhile is whole, filled with zeros, and says so', async () => {
    await using cleanup = makeCleanup()
    const folder = await scratch(cleanup)
    const tree = join(folder, 'tree')
    await mkdir(tree)
    await writeFile(join(tree, 'a'), Buffer.alloc(3_000_000, 'a'))
    await writeFile(join(tree, 'b'), 'after')
    const warnings: string[] = []
    const chunks: Buffer[] = []
    for await (const piece of packTar(tree, 'tree', (line) => warnings.push(line))) {
      if (chunks.length === 0) await truncate(join(tree, 'a'), 1_000_000)
      chunks.push(Buffer.from(piece))
    }
    expect(warnings).toEqual(['tree/a: shrank while being read; the rest is zeros'])
    await writeFile(join(folder, 'x.tar'), Buffer.concat(chunks))
    await exec('tar', ['-xf', join(folder, 'x.tar'), '-C', folder, '--one-top-level=out'])
    const read = await readFile(join(folder, 'out/tree/a'))
    expect(read.indexOf(0)).toBe(1_000_000)
    expect(read).toHaveLength(3_000_000)
    expect(await readFile(join(folder, 'out/tree/b'), 'utf8')).toBe('after')
  })

  it('holds every name where the file system tells no types', async () => {
    await using cleanup = makeCleanup()
    const { folder, tree } = await plant(cleanup)
    const stored = await store(folder, { TEST_NO_TYPES: '1' })
    expect(stored).toMatchObject({ status: 0, stderr: '' })
    await exec('tar', ['-xzf', join(folder, 'spool', stored.key), '-C', folder, '--one-top-level=out'])
    await exec('diff', ['-r', '--no-dereference', tree, join(folder, 'out/tree')])
  })

  it.each([
    ['readSync page EIO', 'cannot archive tree/page: EIO: made up'],
    ['openSync page EMFILE', 'cannot archive tree/page: EMFILE: made up'],
    ['read big EIO', 'cannot archive tree/big: EIO: made up'],
    ['read big EIO 1000000', 'cannot archive tree/big: EIO: made up'],
    ['read big EACCES 1000000', 'cannot archive tree/big: permission denied'],
    ['readlinkSync link EIO', 'cannot archive tree/link: EIO: made up'],
    [`opendirSync ${'a'.repeat(90)} ESTALE`, `cannot archive tree/${'a'.repeat(90)}: ESTALE: made up`],
    ['opendirSync tree EACCES', 'cannot archive tree: permission denied'],
    ['opendirSync tree ENOENT', 'cannot archive tree: no such file or directory'],
  ])('is not made of what cannot be read: %s', async (failing, words) => {
    await using cleanup = makeCleanup()
    const { folder } = await plant(cleanup)
    const stored = await store(folder, { TEST_FAIL: failing })
    expect(stored).toMatchObject({ status: 1, stdout: '' })
    expect(stored.stderr).toContain(words)
    await expect(readdir(join(folder, 'spool/w'))).resolves.toEqual([])
  })

  it.each([
    ['openSync page EACCES', 'tree/page: left out (EACCES)'],
    ['openSync page ENOENT', 'tree/page: left out (vanished)'],
    ['readlinkSync link EINVAL', 'tree/link: left out (changed)'],
    [`opendirSync ${'a'.repeat(90)} EPERM`, `tree/${'a'.repeat(90)}: left out its contents (EPERM)`],
  ])('says what vanished or may not be read, and holds the rest: %s', async (failing, words) => {
    await using cleanup = makeCleanup()
    const { folder } = await plant(cleanup)
    const stored = await store(folder, { TEST_FAIL: failing })
    expect(stored.status).toBe(0)
    expect(stored.stderr).toBe(`persist-result: ${words}\n`)
    const { stdout } = await exec('tar', ['-tzf', join(folder, 'spool', stored.key)])
    expect(stdout).toMatch(/^tree\/$/m)
    expect(stdout).toMatch(/^tree\/plain.txt$/m)
  })

  it('of 20,000 files takes hardly more memory than one of few', async () => {
    await using cleanup = makeCleanup()
    const folder = await scratch(cleanup)
    await exec(
      'sh',
      [
        '-c',
        'mkdir few many && cd many && seq -f "file-%06.0f" 20000 | split -l 1 -a 5 && ls | head -n 100 | xargs -I{} cp {} ../few',
      ],
      { cwd: folder, maxBuffer: 1 << 20 },
    )
    const peak = async (name: string): Promise<number> => {
      const script = `process.on('exit', () => require('fs').writeFileSync('${folder}/peak', String(process.resourceUsage().maxRSS)))`
      await writeFile(join(folder, 'peak.js'), script)
      const stored = await run([process.execPath, '-r', join(folder, 'peak.js'), BUNDLE, '-q', name], {
        cwd: folder,
        env: bareEnvironment({ WORKER_ID: 'w', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool') }),
      })
      expect(stored).toMatchObject({ status: 0, stderr: '' })
      const { stdout } = await exec('sh', ['-c', `tar -tzf spool/${stored.key} | wc -l`], { cwd: folder })
      expect(Number(stdout)).toBe(name === 'many' ? 20_001 : 101)
      return Number(await readFile(join(folder, 'peak'), 'utf8')) / 1024
    }
    // Names are sorted, so a folder's own list is held, and V8 makes more room for garbage as it comes; nothing else may grow.
    expect((await peak('many')) - (await peak('few'))).toBeLessThan(25)
  })
})

/** Runs what helpers ask to be run at the end. */
function makeCleanup(): Cleanup & AsyncDisposable {
  const steps: (() => unknown)[] = []
  return {
    onTestFinished: (step) => void steps.push(step as () => unknown),
    [Symbol.asyncDispose]: async () => {
      for (const step of steps.reverse()) await step()
    },
  }
}
