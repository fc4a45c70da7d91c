import { execFileSync } from 'node:child_process'
import { chmod, mkdir, readdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, inject, it } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { type RunResult, run } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

const BUSYBOX = findProgram('busybox')
const SIZE_BYTES = 8_000_000

/** Where a `tar` of the test's own stands before the tools. */
interface Place {
  readonly folder: string
  readonly spool: string
  /** Stores `tree`, and more if there is more. */
  persist(...more: readonly string[]): Promise<RunResult>
}

async function makePlace(
  test: Cleanup,
  { argv, tools, tar }: { argv: readonly string[]; tools: string; tar: string },
): Promise<Place> {
  const folder = await scratch(test)
  const bin = join(folder, 'bin')
  const tree = join(folder, 'tree')
  await mkdir(bin)
  await mkdir(tree)
  await writeFile(join(tree, 'a'), '')
  await truncate(join(tree, 'a'), SIZE_BYTES)
  await writeFile(join(tree, 'b'), 'after')
  await writeFile(join(bin, 'tar'), `#!/bin/sh\n${tar}\n`)
  await chmod(join(bin, 'tar'), 0o755)
  const spool = join(folder, 'spool')
  const env = { PATH: `${bin}:${tools}`, WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: spool, TMPDIR: folder }
  return {
    folder,
    spool,
    persist: (...more) => run([...argv, SCRIPT, '-q', 'tree', ...more], { cwd: folder, env }),
  }
}

async function expectNothing({ spool }: Place, { status, stdout }: RunResult): Promise<void> {
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(await readdir(join(spool, 't'))).toEqual([])
}

function expectWhole({ spool }: Place, { status, key }: RunResult): void {
  expect(status).toBe(0)
  const listed = execFileSync('tar', ['-tzf', join(spool, key)], { encoding: 'utf8' })
  expect(listed.trimEnd().split('\n')).toEqual(['tree/', 'tree/a', 'tree/b'])
}

/** Packs by `pack`; anything else goes to the real one, which is `real`. */
const packing = (real: string, pack: string): string =>
  `case "$*" in *'-cf - '*) ;; *) exec ${real} "$@" ;; esac\n${pack}`

/**
 * BusyBox's, of which a file shrinks once it has begun to pack it, which is when something of its content has come; what is in a
 * pipe is far less than the file.
 */
const shrinking = `
{ ${BUSYBOX} tar "$@"; echo $? >status; } | { dd bs=1 count=2048 2>/dev/null; truncate -s 5000 tree/a; cat; }
read -r status <status
exit "$status"`

describe.each(shells)('an archive made by $name', ({ argv }) => {
  const busybox = { argv, tools: inject('busyboxTools') }
  const gnu = { argv, tools: process.env.PATH ?? '' }

  it.skipIf(BUSYBOX === undefined)(
    'is packed anew when a tar gave up on a file that shrank',
    async (test) => {
      const once = `echo >>calls\n[ "$(wc -l <calls)" = 1 ] || exec ${BUSYBOX} tar "$@"${shrinking}`
      const place = await makePlace(test, { ...busybox, tar: packing(`${BUSYBOX} tar`, once) })
      expectWhole(place, await place.persist())
    },
  )

  it.skipIf(BUSYBOX === undefined)('is not stored when its files never keep still', async (test) => {
    const always = `truncate -s ${SIZE_BYTES} tree/a${shrinking}`
    const place = await makePlace(test, { ...busybox, tar: packing(`${BUSYBOX} tar`, always) })
    const result = await place.persist()
    await expectNothing(place, result)
    expect(result.stderr).toMatch(/cannot archive \.\/tree\n$/)
  })

  it.skipIf(BUSYBOX === undefined)(
    'is not stored when a tar stops between two files without a word',
    async (test) => {
      const half = `${BUSYBOX} tar "$@" | head -c 512\nexit 1`
      const place = await makePlace(test, { ...busybox, tar: packing(`${BUSYBOX} tar`, half) })
      await expectNothing(place, await place.persist())
    },
  )

  it.skipIf(BUSYBOX === undefined)(
    'is stored when all that a tar has to say is of what vanished',
    async (test) => {
      const vanished = `${BUSYBOX} tar "$@"\necho "tar: tree/c: No such file or directory" >&2\nexit 1`
      const place = await makePlace(test, { ...busybox, tar: packing(`${BUSYBOX} tar`, vanished) })
      const result = await place.persist()
      expectWhole(place, result)
      expect(result.stderr).toBe('persist-result: tree/c: No such file or directory\n')
    },
  )

  it('is not stored when the directory vanishes before it is packed', async (test) => {
    const place = await makePlace(test, { ...gnu, tar: `exec ${findProgram('tar')} "$@"` })
    // The moment is asked for between looking at a directory and packing it; the first one leaves its files to the second.
    const date = `[ ! -e spool/t/*-tree.tar.gz.meta.json ] || mv gone-soon gone\nexec ${findProgram('date')} "$@"`
    await writeFile(join(place.folder, 'bin/date'), `#!/bin/sh\n${date}\n`)
    await chmod(join(place.folder, 'bin/date'), 0o755)
    await mkdir(join(place.folder, 'gone-soon'))
    const { status, stdout, stderr } = await place.persist('gone-soon')
    expect(status).toBe(1)
    expect(stdout).toMatch(/^t\/[\d-]+-tree\.tar\.gz\n$/)
    expect(stderr).toMatch(/cannot archive \.\/gone-soon\n$/)
    expect(await readdir(join(place.spool, 't'))).toHaveLength(3)
  })

  it.for([
    ['tree/a: Warning: Read error at byte 0, while reading 10240 bytes: Input/output error', 1],
    ['tree/a: Warning: Cannot open: Too many open files', 1],
    ['tree/sub: Warning: Cannot savedir: Stale file handle', 1],
    ['tree/a: Warning: Cannot open: Permission denied', 0],
    ['tree/a: File removed before we read it', 0],
    ['tree/a: file changed as we read it', 0],
    ['tree/a: File shrank by 1 byte; padding with zeros', 0],
  ] as const)('of GNU tar that says "%s" ends with %i', async ([said, status], test) => {
    const real = findProgram('tar') ?? ''
    const place = await makePlace(test, {
      ...gnu,
      tar: packing(real, `echo "tar: ${said}" >&2\n${real} "$@"`),
    })
    const result = await place.persist()
    expect(result.stderr).toContain(`persist-result: ${said}\n`)
    if (status === 0) expectWhole(place, result)
    else await expectNothing(place, result)
  })
})
