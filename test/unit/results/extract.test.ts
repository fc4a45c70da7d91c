import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, readlink, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Header, pack } from 'tar-stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { extractArchive } from '../../../src/results/extract.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

const limits = { maxBytes: 1_000_000, maxEntries: 100 }

type Entry = [header: Partial<Header> & { name: string }, body?: string]

/** An archive as a hostile worker would build it by hand. */
async function archive(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack()
  for (const [header, body = ''] of entries) tar.entry(header as Header, body)
  tar.finalize()
  const chunks: Buffer[] = []
  for await (const chunk of tar as unknown as AsyncIterable<Buffer>) chunks.push(chunk)
  return gzipSync(Buffer.concat(chunks))
}

async function* feed(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000)
}

describe('extracting an archive', () => {
  let dir: TempDir
  beforeEach(async () => {
    dir = await makeTempDir()
  })
  afterEach(async () => {
    await dir[Symbol.asyncDispose]()
  })

  const extract = async (bytes: Uint8Array, more = {}): Promise<unknown> =>
    extractArchive(feed(bytes), join(dir.path, 'deep', 'out'), { ...limits, ...more })
  const out = (...names: string[]): string => join(dir.path, 'deep', 'out', ...names)

  it('gives back files, folders, links, modes and times', async () => {
    const mtime = new Date('2026-01-14T12:00:00Z')
    const bytes = await archive([
      [{ name: 'plots/', type: 'directory', mode: 0o755, mtime }],
      [{ name: 'plots/a.svg', mode: 0o4755, mtime }, '<svg/>'],
      [{ name: 'plots/ü b/c', mtime }, 'deep'],
      [{ name: 'plots/latest', type: 'symlink', linkname: 'a.svg' }],
      [{ name: 'plots/ü b/up', type: 'symlink', linkname: '../a.svg' }],
    ])
    expect(await extract(bytes)).toEqual({ path: out(), files: 2, bytes: 10 })
    expect(await readFile(out('plots/ü b/c'), 'utf8')).toBe('deep')
    expect(await readlink(out('plots/latest'))).toBe('a.svg')
    expect(await readFile(out('plots/ü b/up'), 'utf8')).toBe('<svg/>')
    const info = await stat(out('plots/a.svg'))
    expect(info.mode & 0o7777).toBe(0o755)
    expect(info.mtime).toEqual(mtime)
    expect((await stat(out('plots'))).mtime).toEqual(mtime)
  })

  it('reads what tar itself wrote', async () => {
    await mkdir(join(dir.path, 'src', 'x'.repeat(120)), { recursive: true })
    await writeFile(join(dir.path, 'src', 'x'.repeat(120), 'y'.repeat(120)), 'long')
    const bytes = execFileSync('tar', ['-czf', '-', '-C', dir.path, 'src'])
    await extract(bytes)
    expect(await readFile(out('src', 'x'.repeat(120), 'y'.repeat(120)), 'utf8')).toBe('long')
  })

  it('keeps names apart that are no UTF-8, and takes the others as they are', async () => {
    await mkdir(join(dir.path, 'src'))
    for (const name of ['ü', 'a\xe9', 'a\xe8', `${'é'.repeat(60)}`]) {
      const bytes = Buffer.from(name, name.startsWith('a') ? 'latin1' : 'utf8')
      await writeFile(Buffer.concat([Buffer.from(`${join(dir.path, 'src')}/`), bytes]), name)
    }
    await extract(execFileSync('tar', ['-czf', '-', '-C', dir.path, 'src']))
    expect((await readdir(out('src'))).sort()).toEqual(['a%E8', 'a%E9', 'é'.repeat(60), 'ü'].sort())
    expect(await readFile(out('src/a%E9'), 'utf8')).toBe('a\xe9')
  })

  it.each<[string, Entry[]]>([
    ['climbs out', [[{ name: '../evil' }, 'x']]],
    ['climbs out from below', [[{ name: 'a/../../evil' }, 'x']]],
    ['is absolute', [[{ name: '/tmp/evil' }, 'x']]],
    ['links outside', [[{ name: 'l', type: 'symlink', linkname: '../..' }]]],
    ['links to an absolute path', [[{ name: 'l', type: 'symlink', linkname: '/etc/passwd' }]]],
    [
      'links out through another link',
      [[{ name: 'a', type: 'symlink', linkname: '.' }], [{ name: 'l', type: 'symlink', linkname: 'a/..' }]],
    ],
    [
      'puts a link behind a link',
      [[{ name: 'd', type: 'symlink', linkname: '.' }], [{ name: 'd/l', type: 'symlink', linkname: '../x' }]],
    ],
    ['writes through a link', [[{ name: 'd', type: 'symlink', linkname: 'e' }], [{ name: 'd/f' }, 'x']]],
    [
      'holds a name twice',
      [
        [{ name: 'f' }, 'x'],
        [{ name: 'f' }, 'y'],
      ],
    ],
    ['holds a hard link', [[{ name: 'h', type: 'link', linkname: '/etc/passwd' }]]],
    ['holds a device', [[{ name: 'null', type: 'character-device', devmajor: 1, devminor: 3 }]]],
    ['holds a pipe', [[{ name: 'p', type: 'fifo' }]]],
  ])('refuses one that %s, and leaves nothing', async (_what, entries) => {
    await expect(extract(await archive(entries))).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect(await readdir(join(dir.path, 'deep'))).toEqual([])
    expect(await readdir(dir.path)).toEqual(['deep'])
  })

  it('refuses bombs, by size and by number', async () => {
    const big = await archive([[{ name: 'zeros' }, '\0'.repeat(5_000_000)]])
    expect(big.length).toBeLessThan(10_000)
    await expect(extract(big)).rejects.toMatchObject({ code: 'TOO_LARGE' })
    const many = await archive(Array.from({ length: 101 }, (_, i): Entry => [{ name: `${i}` }]))
    await expect(extract(many)).rejects.toMatchObject({ code: 'TOO_LARGE' })
    expect(await readdir(join(dir.path, 'deep'))).toEqual([])
  })

  it('refuses what is broken or cut short', async () => {
    const whole = await archive([[{ name: 'f' }, 'x'.repeat(10_000)]])
    await expect(extract(whole.subarray(0, whole.length - 20))).rejects.toMatchObject({ code: 'INTEGRITY' })
    await expect(extract(Buffer.from('not gzip'))).rejects.toMatchObject({ code: 'INTEGRITY' })
    expect(await readdir(join(dir.path, 'deep'))).toEqual([])
  })

  it('refuses files with holes, which stand there under another name and with a map before their bytes', async () => {
    await writeFile(join(dir.path, 'holes'), 'x')
    await truncate(join(dir.path, 'holes'), 5_000_000)
    for (const format of ['posix', 'gnu']) {
      const bytes = execFileSync('tar', [`--format=${format}`, '-czSf', '-', '-C', dir.path, 'holes'])
      await expect(extract(bytes, { maxBytes: 10_000_000 }), format).rejects.toMatchObject({
        code: 'INTEGRITY',
      })
    }
  })

  it('reads nothing where its place is taken, or there can be none', async () => {
    await mkdir(join(dir.path, 'deep', 'some', 'thing'), { recursive: true })
    await writeFile(join(dir.path, 'file'), 'mine')
    await symlink('some', join(dir.path, 'deep', 'link'))
    // biome-ignore lint/correctness/useYield: it must not come so far
    const unread = async function* (): AsyncGenerator<Uint8Array> {
      throw new Error('was read')
    }
    for (const [path, code] of [
      ['deep/some', 'EXISTS'],
      ['deep/link', 'EXISTS'],
      ['file', 'EXISTS'],
      ['file/below', 'INVALID_OPTION'],
    ] as const) {
      const unpacked = extractArchive(unread(), join(dir.path, path), limits)
      await expect(unpacked, path).rejects.toMatchObject({ code, message: expect.stringContaining(path) })
    }
    expect((await readdir(join(dir.path, 'deep'))).sort()).toEqual(['link', 'some'])
  })

  it('takes back what it noted when another takes the name at the last moment', async () => {
    const bytes = await archive([[{ name: 'f' }, 'x']])
    const noted: [string, boolean][] = []
    const notes = {
      add: async (staging: string) => {
        noted.push([staging, existsSync(staging)])
        await mkdir(out('of another'), { recursive: true })
      },
      retract: async (staging: string) => void noted.push([staging, existsSync(staging)]),
    }
    await expect(extract(bytes, { notes })).rejects.toMatchObject({ code: 'EXISTS' })
    expect(noted).toEqual([noted[0], noted[0]])
    expect(noted[0]?.[1]).toBe(true)
    expect(await readdir(join(dir.path, 'deep'))).toEqual(['out'])
  })

  it('rejects with the reason when cancelled, and leaves nothing', async () => {
    const bytes = await archive([[{ name: 'a' }, 'x'.repeat(5000)], [{ name: 'b' }]])
    const cancel = new AbortController()
    const halfway = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, 40)
      cancel.abort(new Error('no longer wanted'))
      // As a source that waits for more for ever.
      await new Promise(() => {})
    }
    const unpacked = extractArchive(halfway(), out(), { ...limits, signal: cancel.signal })
    await expect(unpacked).rejects.toThrow('no longer wanted')
    expect(await readdir(join(dir.path, 'deep'))).toEqual([])
  })

  it('takes an empty folder, and refuses one with something in it', async () => {
    const bytes = await archive([[{ name: 'f' }, 'x']])
    await mkdir(out(), { recursive: true })
    await extract(bytes)
    await expect(extract(bytes)).rejects.toMatchObject({ code: 'EXISTS' })
    expect(await readdir(join(dir.path, 'deep'))).toEqual(['out'])
  })
})
