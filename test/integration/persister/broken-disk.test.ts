import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { DrainReport } from '../../../src/protocol/drain.js'
import { findProgram } from '../../support/find-program.js'
import { BUNDLE, type RunResult } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { openS3Place, type S3Place, spoolTarget, type Target } from '../../support/persister/targets.js'
import { makeWorker, type Worker } from '../../support/persister/worker.js'
import { startLocalServer } from '../../support/s3/servers.js'
import { SCRIPT, shells } from '../../unit/persister-sh/shells.js'

const HOOK = fileURLToPath(new URL('../../support/persister/sync-hook.cjs', import.meta.url))

/** Commands that sync; each notes that, and fails when its turn has come. */
async function shellTools(test: Cleanup): Promise<Record<string, string>> {
  const bin = join(await scratch(test), 'bin')
  await mkdir(bin)
  const turn = 'echo "$*" >>"$TEST_SYNCS"; [ "$(($(wc -l <"$TEST_SYNCS")))" = "$TEST_FAIL_SYNC" ]'
  const complain = (path: string): string =>
    `echo "$0: error syncing '${path}': Input/output error" >&2; exit 1`
  const tools = {
    sync: `if ${turn}; then for path; do :; done; ${complain('$path')}; fi`,
    dd: `case "$*" in *conv=fsync*) ;; *) exec ${findProgram('dd')} "$@" ;; esac
said=$(${findProgram('dd')} "$@" 2>&1) || exit; for word; do case $word in of=*) path=\${word#of=} ;; esac; done
if ${turn}; then ${complain('$path')}; fi; echo "$said" >&2`,
  }
  for (const [name, text] of Object.entries(tools)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${text}\nexit 0\n`)
    await chmod(join(bin, name), 0o755)
  }
  return { PATH: `${bin}:${process.env.PATH}` }
}

const programs = [
  {
    name: 'node',
    argv: [process.execPath, BUNDLE],
    hook: async () => ({ NODE_OPTIONS: `--require=${JSON.stringify(HOOK)}` }),
  },
  ...shells.map(({ name, argv }) => ({ name, argv: [...argv, SCRIPT], hook: shellTools })),
]

describe.each(programs)('a disk that fails a sync, $name', ({ argv, hook }) => {
  let place: S3Place
  beforeAll(async () => {
    place = await openS3Place(await startLocalServer())
  })
  afterAll(() => place[Symbol.asyncDispose]())

  /** A worker, and one call of it of which the nth sync fails; none when that is 0. */
  async function callOnce(
    test: Cleanup,
    target: Target,
    args: readonly string[],
    failAt: number,
  ): Promise<{ worker: Worker; result: RunResult; syncs: readonly string[] }> {
    const made = await makeWorker(test, argv, target)
    const log = join(made.folder, 'syncs')
    await writeFile(log, '')
    await writeFile(join(made.folder, 'f'), 'content')
    const env = { ...(await hook(test)), TEST_SYNCS: log, TEST_FAIL_SYNC: '' }
    const worker: Worker = { ...made, persist: (words) => made.persist(words, { env }) }
    const result = await made.persist(args, { env: { ...env, TEST_FAIL_SYNC: `${failAt}` } })
    return { worker, result, syncs: await readLog(worker) }
  }

  /** What was synced, in order. */
  async function readLog({ folder }: Worker): Promise<string[]> {
    return (await readFile(join(folder, 'syncs'), 'utf8')).trimEnd().split('\n')
  }

  /** Does the same for each sync that a call makes. */
  async function eachSync(
    test: Cleanup,
    target: Target,
    args: readonly string[],
    check: (worker: Worker, result: RunResult, failed: string) => Promise<void>,
  ): Promise<void> {
    const { syncs, result } = await callOnce(test, target, args, 0)
    expect(result).toMatchObject({ status: 0, stderr: '' })
    // The spool's folder, the task's, the body, the record, and the task's folder again.
    expect(syncs.length).toBeGreaterThanOrEqual(4)
    await Promise.all(
      Array.from(syncs, async (_, i) => {
        const { worker, result, syncs } = await callOnce(test, target, args, i + 1)
        await check(worker, result, syncs[i] ?? '')
      }),
    )
  }

  it('is not trusted with a result that nobody else has', async (test) => {
    await eachSync(test, spoolTarget, ['-q', 'f'], async (worker, { status, stdout, stderr }, failed) => {
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
      expect(stderr).toMatch(
        /^persist-result: [^\n]*cannot write [^\n:]+: [^\n]*(i\/o|input\/output) error[^\n]*\n$/i,
      )
      // What is not acknowledged is not there either, or storing it again would make two of it.
      expect((await worker.persist(['--list'])).stdout).toBe('')
      const before = (await readLog(worker)).length
      const again = await worker.persist(['-q', 'f'])
      expect(again).toMatchObject({ status: 0, stderr: '' })
      // Unfinished files are others each time; a folder that may not be on disk is not taken for one that is.
      if (!failed.includes('.tmp-')) expect((await readLog(worker)).slice(before)).toContain(failed)
      expect((await worker.persist(['--list'])).stdout).toBe(again.stdout)
      expect(await worker.spooled(again.key)).toEqual(Buffer.from('content'))
    })
  })

  it('does not keep a result from a store, where it is once', async (test) => {
    const target = place.withKeys
    await eachSync(test, target, ['-q', '--require', 's3', 'f'], async (worker, { status, key }) => {
      expect(status).toBe(0)
      expect((await worker.persist(['-q', '--flush'])).status).toBe(0)
      expect(await target.keys(worker.taskId)).toEqual([key])
      expect((await target.read(key))?.bytes).toEqual(Buffer.from('content'))
    })
  })

  it('shows in the report of a drain', async (test) => {
    const args = ['drain', '--json', '-o', 'f']
    await eachSync(test, spoolTarget, args, async (_worker, { status, stdout }) => {
      expect(status).toBe(0)
      const { outputs, records } = JSON.parse(stdout) as DrainReport
      expect(outputs).toMatchObject([{ status: 'failed', key: null }])
      expect(records).toEqual([])
    })
  })
})
