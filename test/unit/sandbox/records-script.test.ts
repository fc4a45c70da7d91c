import { execFile } from 'node:child_process'
import { access, mkdir, symlink, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { parseRecords, recordsScript } from '../../../src/sandbox/records-script.js'
import { makeTempDir } from '../../support/temp-dir.js'

const run = promisify(execFile)

/** Where the system's programs are. */
const FOLDERS = (process.env.PATH ?? '').split(delimiter)

async function find(program: string): Promise<string | undefined> {
  for (const folder of FOLDERS) {
    const path = join(folder, program)
    const there = await access(path).then(
      () => true,
      () => false,
    )
    if (there) return path
  }
  return undefined
}

/** Programs that a sandbox may have for this, by name. */
const systems: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  mawk: { sh: 'sh', find: 'find', head: 'head', awk: 'mawk' },
  gawk: { sh: 'sh', find: 'find', head: 'head', awk: 'gawk' },
  'the one true awk': { sh: 'sh', find: 'find', head: 'head', awk: 'original-awk' },
  busybox: { sh: 'busybox', find: 'busybox', head: 'busybox', awk: 'busybox' },
}

/** Runs the script over a folder with no programs but these; undefined when this machine lacks one. */
async function read(
  programs: Readonly<Record<string, string>>,
  bin: string,
  spool: string,
): Promise<string | undefined> {
  await mkdir(bin)
  for (const [name, program] of Object.entries(programs)) {
    const path = await find(program)
    if (path === undefined) return undefined
    await symlink(path, join(bin, name))
  }
  const options = { env: { PATH: bin }, maxBuffer: 1 << 27 }
  return (await run(join(bin, 'sh'), ['-c', recordsScript(spool)], options)).stdout
}

describe('reading all records of a spool', () => {
  it.each(Object.entries(systems))('takes what is whole, and nothing else, with %s', async (_, programs) => {
    await using dir = await makeTempDir()
    const spool = join(dir.path, "it's a 'spool'")
    await mkdir(spool)
    const put = (name: string, text: string | Uint8Array): Promise<void> => writeFile(join(spool, name), text)
    const names = ['plain', '-n', 'x=1', 'ä 😀 "q" $(x) `y` \\n', "it's", '*', '...', 'N', 'T.']
    for (const name of names) {
      await put(name, 'bytes')
      await put(`${name}.meta.json`, `{"name":${JSON.stringify(name)},"backslash":"\\n%s"}\n`)
    }
    await put('unended', '')
    await put('unended.meta.json', '{"a":\n\nN./plain.meta.json\nE')
    await put('long', '')
    await put('long.meta.json', `{"long":"${'ü'.repeat(1_000_000)}"}`)
    await put('huge', '')
    await put('huge.meta.json', Buffer.alloc(5_000_000, ' '))
    await put('binary', '')
    await put('binary.meta.json', Buffer.from([0xff, 0xfe, 0, 1, 0x80, 10, 0xc3]))
    await put('alone.meta.json', '{}')
    await put('two\nlines', '')
    await put('two\nlines.meta.json', '{}')
    await put('linked', '')
    await symlink('/etc/hostname', join(spool, 'linked.meta.json'))
    await mkdir(join(spool, 'folder.meta.json'))
    await put('folder', '')
    await mkdir(join(spool, 'sub'))
    await put('sub/inner', '')
    await put('sub/inner.meta.json', '{}')

    const printed = await read(programs, join(dir.path, 'bin'), spool)
    if (printed === undefined) {
      process.stderr.write(`left out: ${Object.values(programs).join(', ')} are not all on this machine\n`)
      return
    }
    const found = new Map(parseRecords(printed)?.map(({ fileName, text }) => [fileName, text]))
    expect([...found.keys()].sort()).toEqual([...names, 'binary', 'long', 'unended'].sort())
    for (const name of names) {
      expect(JSON.parse(found.get(name) ?? '')).toEqual({ name, backslash: '\n%s' })
    }
    expect(JSON.parse(found.get('long') ?? '').long).toHaveLength(1_000_000)
    expect(found.get('unended')).toBe('{"a":\n\nN./plain.meta.json\nE')
    // What does not get to its end is no list.
    expect(parseRecords(printed.slice(0, -1))).toBeUndefined()
    expect(parseRecords(printed.slice(0, -2))).toBeUndefined()
  })

  it('finds nothing where there is no folder, and says when it cannot look', async () => {
    await using dir = await makeTempDir()
    const { mawk = {} } = systems
    const absent = await read({ ...mawk, awk: 'awk' }, join(dir.path, 'bin'), join(dir.path, 'absent'))
    expect(parseRecords(absent ?? '')).toEqual([])
    const { awk: _, ...rest } = mawk
    const without = await read(rest, join(dir.path, 'without'), dir.path)
    expect(parseRecords(without ?? '')).toBeUndefined()
  })
})
