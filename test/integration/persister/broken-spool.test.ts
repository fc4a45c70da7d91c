import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { DrainReport } from '../../../src/protocol/drain.js'
import { faultedImplementations } from '../../conformance/persister/implementations.js'
import { canMount } from '../../support/can-mount.js'
import { startHttpReceiver } from '../../support/persister/http-receiver.js'
import { bareEnvironment, run } from '../../support/persister/program.js'
import type { Cleanup } from '../../support/persister/scratch.js'
import { openS3Place } from '../../support/persister/targets.js'
import { startLocalServer } from '../../support/s3/servers.js'
import { thorough } from '../../support/thorough.js'

if (!canMount) console.warn('left out: full and read-only spools, because unshare -rm does not work here')

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

describe.each(faultedImplementations)('a spool that cannot be written, $name', ({ argv, name }) => {
  const other = faultedImplementations.find((candidate) => candidate.argv !== argv)?.argv ?? argv

  interface Broken {
    /** Runs persist-result where the spool is a mount made by `mount`, with `$S` as its folder. */
    run(args: readonly string[], options?: { by: readonly string[] }): ReturnType<typeof run>
    readonly folder: string
  }

  async function broken(test: Cleanup, mount: string, env: Record<string, string>): Promise<Broken> {
    const folder = await mkdtemp(join(tmpdir(), 'persister-broken-'))
    test.onTestFinished(() => rm(folder, { recursive: true, force: true }))
    const spool = join(folder, 'spool')
    await mkdir(spool)
    await mkdir(join(folder, 'tmp'))
    const command = (words: readonly string[]): string =>
      `S=${quote(spool)}; ${mount}; exec ${words.map(quote).join(' ')}`
    return {
      folder,
      run: (args, { by } = { by: argv }) =>
        run(['unshare', '-rm', 'sh', '-c', command([...by, ...args])], {
          cwd: folder,
          env: bareEnvironment({
            WORKER_ID: 'w',
            WORKER_RESULTS_LOCAL_DIR: spool,
            TMPDIR: join(folder, 'tmp'),
            WORKER_RESULTS_DEADLINE_SECONDS: '3',
            ...env,
          }),
        }),
    }
  }

  const full = 'mount -t tmpfs -o size=64k tmpfs "$S"'
  const readOnly = 'mount -t tmpfs -o ro tmpfs "$S"'

  describe.skipIf(!canMount).each([
    ['full', full, /cannot write [^\n:]+: no space left on device;/i],
    ['read-only', readOnly, /cannot write [^\n:]+: read-only file system;/i],
  ])('%s', (_what, mount, why) => {
    it('fails in one line when there is no other storage', async (test) => {
      const worker = await broken(test, mount, {})
      await mkdir(join(worker.folder, 'd'))
      await writeFile(join(worker.folder, 'd/f'), randomBytes(200_000))
      for (const result of await Promise.all([worker.run(['d/f']), worker.run(['d'])])) {
        expect(result).toMatchObject({ status: 1, stdout: '' })
        expect(result.stderr).toMatch(/^persist-result: All storage methods failed: [^\n]+\n$/)
        expect(result.stderr).toMatch(why)
      }
    })

    it('sends files, directories and content to S3 all the same', async (test) => {
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const worker = await broken(test, mount, await place.withKeys.env('w'))
      const bytes = randomBytes(200_000)
      await writeFile(join(worker.folder, 'f'), bytes)
      await mkdir(join(worker.folder, 'd'))
      await writeFile(join(worker.folder, 'd/g'), bytes)
      const results = await Promise.all([worker.run(['f']), worker.run(['f']), worker.run(['d'])])
      for (const result of results) {
        expect(result.status).toBe(0)
        expect(result.stderr).toMatch(/Local storage failed: /)
        expect(result.stderr).not.toMatch(/All storage methods failed/)
      }
      expect(await place.withKeys.keys('w')).toEqual(results.map(({ key }) => key).sort())
      expect((await place.withKeys.read(results[0].key))?.bytes.equals(bytes)).toBe(true)
      expect(await readdir(join(worker.folder, 'tmp'))).toEqual(['persist-result-claims'])
    })

    it('acknowledges nothing that no remote storage took', async (test) => {
      const receiver = await startHttpReceiver('another-token')
      test.onTestFinished(() => receiver[Symbol.asyncDispose]())
      const worker = await broken(test, mount, { WORKER_RESULTS_ENDPOINT: receiver.url })
      await writeFile(join(worker.folder, 'f'), randomBytes(200_000))
      const result = await worker.run(['f'])
      expect(result).toMatchObject({ status: 1, stdout: '' })
      expect(result.stderr).toMatch(/HTTP storage failed: HTTP 401: who are you\?/)
      expect(result.stderr).toMatch(/All storage methods failed: /)
    })

    it('stores a declared output once, and takes stock of it as the other implementation does', async (test) => {
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const worker = await broken(test, mount, await place.withKeys.env('w'))
      await writeFile(join(worker.folder, 'f'), randomBytes(200_000))
      const drain = async (by = argv): Promise<DrainReport> =>
        JSON.parse((await worker.run(['drain', '--json', '--output', 'f'], { by })).stdout) as DrainReport
      const first = await drain()
      expect(first.outputs).toMatchObject([{ status: 'stored' }])
      expect(first.records).toMatchObject([{ key: first.outputs[0]?.key, stored: [{ tier: 's3' }] }])
      for (const by of [argv, other]) {
        expect(await drain(by)).toMatchObject({ outputs: [{ status: 'unchanged' }], records: first.records })
      }
      expect(await place.withKeys.keys('w')).toHaveLength(1)
    })
  })

  it.skipIf(!canMount)(
    'tells all it holds, and stores an output once, where no disk has room',
    async (test) => {
      const place = await openS3Place(await startLocalServer())
      test.onTestFinished(() => place[Symbol.asyncDispose]())
      const words = (args: readonly string[]): string => [...argv, ...args].map(quote).join(' ')
      const drain = ['drain', '--json', '--output', 'out']
      const steps = [
        'mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs -o size=512k tmpfs "$S"; mkdir "$S/tmp"; export TMPDIR="$S/tmp"',
        `env -u WORKER_RESULTS_S3_BUCKET ${words(['-q', 'kept'])}; cat /dev/zero >"$S/ballast" 2>/dev/null`,
        words(drain),
      ]
      const worker = await broken(test, steps.join('; '), await place.withKeys.env('w'))
      await writeFile(join(worker.folder, 'kept'), 'kept')
      await writeFile(join(worker.folder, 'out'), 'out')
      const { status, stdout, stderr } = await worker.run(drain)
      expect(status, stderr).toBe(0)
      const [kept = '', ...reports] = stdout.trimEnd().split('\n')
      const [first, second] = reports.map((line) => JSON.parse(line) as DrainReport)
      const out = first?.outputs[0]?.key ?? ''
      expect(first?.outputs).toMatchObject([{ status: 'stored' }])
      expect(second?.outputs).toMatchObject([{ status: 'unchanged', key: out }])
      for (const report of [first, second]) expect(report?.records.map(({ key }) => key)).toEqual([kept, out])
      expect(await place.withKeys.keys('w')).toEqual([kept, out])
    },
  )

  // Room for the spool's own folder and then, file by file, for the task's, the body, its name, the marker and the record.
  const rooms = ['nr_inodes=1', 'nr_inodes=2', 'nr_inodes=3', 'nr_inodes=4', 'nr_inodes=5', 'size=64k']

  it.skipIf(!canMount)('says why nothing is stored, wherever the room runs out', async (test) => {
    const workers = await Promise.all(
      [...rooms, 'nr_inodes=6'].map((room) => broken(test, `mount -t tmpfs -o ${room} tmpfs "$S"`, {})),
    )
    const results = await Promise.all(
      workers.map(async (worker) => {
        await writeFile(join(worker.folder, 'f'), randomBytes(65_536))
        return await worker.run(['-q', 'f'])
      }),
    )
    expect(results.pop()).toMatchObject({ status: 0, stderr: '' })
    for (const { status, stdout, stderr } of results) {
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
      expect(stderr).toMatch(
        /^persist-result: [^\n]+: cannot write [^\n:]+: no space left on device; [^\n]+\n$/i,
      )
    }
  })

  // The shell goes on with the end of the output; what came meanwhile it leaves out, as where that is too long.
  it.skipIf(!canMount || name !== 'node')(
    'keeps all of a command’s output and its exit while somebody else fills it for a moment',
    async (test) => {
      const command =
        'cd "$WORKER_RESULTS_LOCAL_DIR"; cat /dev/zero >ballast 2>/dev/null; (sleep 0.4; rm ballast) & seq 1 2000; exit 3'
      const supervised = [...argv, 'run', '--run-id', '1', '--', 'sh', '-c', command].map(quote).join(' ')
      const read = 'cd "$S/.worker/w/runs/1" && cat stdout.log exit.json'
      const worker = await broken(test, `${full}; ${supervised} >/dev/null; ${read}; exit`, {})
      const { stdout, stderr } = await worker.run([])
      expect(stderr).toBe('')
      const lines = stdout.trimEnd().split('\n')
      expect(JSON.parse(lines.pop() ?? '')).toMatchObject({ code: 3 })
      expect(lines).toEqual(Array.from({ length: 2000 }, (_, i) => String(i + 1)))
    },
  )

  it.skipIf(!canMount)(
    'keeps a command’s exit where it is full for good, and says how much output it does not keep',
    async (test) => {
      // The supervisor in Node waits for some seconds first, in which more output comes and the command ends.
      const lines = thorough || name !== 'node' ? 2000 : 0
      const command = `echo begun; sleep 0.2; cat /dev/zero >"$WORKER_RESULTS_LOCAL_DIR/ballast" 2>/dev/null; seq 1 ${lines * 0.75}; sleep 0.2; seq ${lines * 0.75 + 1} ${lines}; exit 3`
      const supervised = [...argv, 'run', '--run-id', '1', '--', 'sh', '-c', command].map(quote).join(' ')
      const read = 'cd "$S/.worker/w/runs/1" && cat stdout.log exit.json && ls -A'
      const worker = await broken(test, `${full}; ${supervised} >/dev/null; ${read}; exit`, {})
      const { stdout } = await worker.run([])
      const [, log = '', record = '', files] = /^([\s\S]*?)(\{.*\}\n)([\s\S]*)$/.exec(stdout) ?? []
      expect(JSON.parse(record)).toMatchObject({ code: 3, signal: null })
      expect(files?.split('\n').sort()).toEqual(['', 'exit.json', 'heartbeat', 'stderr.log', 'stdout.log'])
      expect(log).toMatch(/^begun\n/)
      const all = `begun\n${Array.from({ length: lines }, (_, i) => `${i + 1}\n`).join('')}`
      const remark = /\n\[persist-result: (\d+) bytes (?:left out|could not be written)\]\n/
      let at = 0
      let missing = 0
      for (const [i, part] of log.split(remark).entries()) {
        if (i % 2 === 0) expect(all.slice(at, at + part.length)).toBe(part)
        else missing += Number(part)
        at += i % 2 === 0 ? part.length : Number(part)
      }
      expect(at).toBe(all.length)
      expect(missing > 0).toBe(lines > 0)
    },
  )
})
