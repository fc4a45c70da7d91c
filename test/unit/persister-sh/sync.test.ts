import { chmod, mkdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { run } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

/** What is run, and how it ends. */
interface Wanted {
  readonly status?: number
  readonly stderr?: RegExp
  /** Of the file that is stored. */
  readonly sizeBytes?: number
}

describe.each(shells)('what the disk has to have, $name', ({ argv }) => {
  /** Stores a result where `sync` and `fsync` are scripts that note their arguments. */
  async function store(
    test: Cleanup,
    tools: Readonly<Record<string, string>>,
    { status = 0, stderr = /^$/, sizeBytes = 7 }: Wanted = {},
  ): Promise<string[]> {
    const folder = await scratch(test)
    const bin = join(folder, 'bin')
    await mkdir(bin)
    for (const name of [
      'date',
      'dd',
      'sha256sum',
      'mv',
      'rm',
      'mkdir',
      'readlink',
      'od',
      'tr',
      'awk',
      'wc',
      'find',
      'sort',
      'cut',
    ]) {
      await symlink(findProgram(name) ?? name, join(bin, name))
    }
    for (const [name, rest] of Object.entries(tools)) {
      await writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >>'${folder}/calls'\n${rest}\n`)
      await chmod(join(bin, name), 0o755)
    }
    const spool = join(folder, 'spool')
    await mkdir(spool)
    await writeFile(join(folder, 'f'), '')
    await truncate(join(folder, 'f'), sizeBytes)
    const env = { PATH: bin, WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: spool }
    const result = await run([...argv, SCRIPT, '-q', join(folder, 'f')], { env })
    expect(result.status).toBe(status)
    expect(result.stderr.replaceAll(spool, 'S')).toMatch(stderr)
    return (await readFile(join(folder, 'calls'), 'utf8')).trimEnd().replaceAll(spool, 'S').split('\n')
  }
  const record = expect.stringMatching(/^(sync|fsync) S\/t\/\.tmp-\S+$/)

  it('is asked for by name', async (test) => {
    const calls = await store(test, { sync: '' })
    expect(calls).toEqual(['sync S', record, 'sync S/t'])
  })

  it('is asked for once only where all disks are meant, and by name from there on', async (test) => {
    const sync = 'echo "sync: ignoring all arguments" >&2'
    const calls = await store(test, { sync, fsync: '' })
    expect(calls).toEqual(['sync S', record, 'fsync S/t'])
    expect(calls[1]).toMatch(/^fsync/)
  })

  const failing = (why: string): string =>
    `for path; do [ ! -d "$path" ] || { echo "sync: error syncing '$path': ${why}" >&2; exit 1; }; done`

  it('says why it does not take a big file, which is synced beside hashing it', async (test) => {
    const why = 'Disk quota exceeded'
    const sync = `for path; do case $path in *.tmp-*) echo "sync: error syncing '$path': ${why}" >&2; exit 1 ;; esac; done`
    await store(
      test,
      { sync },
      {
        sizeBytes: 9 << 20,
        status: 1,
        stderr:
          /^persist-result: All storage methods failed: local: cannot write S\/t: Disk quota exceeded; [^\n]*\n$/,
      },
    )
  })

  it('need not have a folder that cannot be synced', async (test) => {
    const calls = await store(test, { sync: failing('Invalid argument') })
    expect(calls).toEqual(['sync S', record, 'sync S/t'])
  })

  it('is not asked for where there are no tools at all, which is said in a line', async (test) => {
    const folder = await scratch(test)
    await writeFile(join(folder, 'f'), 'content')
    const env = { PATH: folder, WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool') }
    const result = await run([...argv, SCRIPT, join(folder, 'f')], { env })
    expect(result).toMatchObject({ status: 1, stdout: '', stderr: 'persist-result: cannot run date\n' })
  })

  it('has to have a folder that can, or nothing is stored', async (test) => {
    const tools = { sync: failing('Input/output error') }
    await store(test, tools, {
      status: 1,
      stderr: /^persist-result: All storage methods failed: local: cannot write S\/t: Input\/output error; /,
    })
  })
})
