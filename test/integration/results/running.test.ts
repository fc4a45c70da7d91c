import { randomBytes } from 'node:crypto'
import { Sandbox, Volume } from 'e2b'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { taskSource } from '../../../src/results/result-source.js'
import { createResults } from '../../../src/results/results.js'
import { E2bSandbox } from '../../../src/sandbox/e2b-sandbox.js'
import { E2bVolumeFiles } from '../../../src/sandbox/e2b-volume.js'
import { SandboxFiles } from '../../../src/sandbox/sandbox-files.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { recordFor } from '../../support/records.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

const names = async (worker: Worker): Promise<string[]> =>
  (await worker.results.list()).map(({ name }) => name)

describe('results of a worker that lives', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  it('that were deleted are not delivered later', async () => {
    let down = true
    await using proxy = await startFaultProxy(stack.s3.url, () =>
      down ? s3Fault(403, 'AccessDenied') : undefined,
    )
    const s3 = { bucket: 'stu-results', endpoint: proxy.url, credentials: stack.s3.credentials }
    await using conductor = stack.conductor({ s3 })
    const worker = await conductor.spawnWorker({ taskId: 'pending' })
    await worker.run('for n in a b; do echo $n > $n; persist-result --quiet $n || :; done')
    const report = await worker.results.delete({ name: 'a' }).catch((error: unknown) => error)
    down = false
    // S3 was asked as well, and refused: doing it again ends it.
    expect(report).toMatchObject({ code: 'ACCESS_DENIED' })
    expect((await worker.results.delete({ name: 'a' })).deleted).toHaveLength(1)
    expect(await names(worker)).toEqual(['b'])
    const receipt = await worker.terminate()
    expect(receipt.results.map(({ key }) => key.slice(-1))).toEqual(['b'])
    expect((await conductor.results('pending').list()).map(({ name }) => name)).toEqual(['b'])
  })

  it('are deleted in the sandbox and in S3, and stay so', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'delivered' })
    await worker.run('for n in a b; do echo $n > $n; persist-result --quiet $n; done')
    const result = await worker.results.latest('a')
    expect(await result?.delete()).toMatchObject({ tiers: ['sandbox', 's3'] })
    expect(await names(worker)).toEqual(['b'])
    await worker.terminate()
    expect((await conductor.results('delivered').list()).map(({ name }) => name)).toEqual(['b'])
  })

  it('are not deleted under the hands of who delivers them', async () => {
    await using conductor = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'held' })
    await worker.run('echo a > a; persist-result --quiet a')
    const [result] = await worker.results.list()
    const file = result?.key.slice(result.key.indexOf('/') + 1)
    // A living process that holds the marker, as one that is delivering does, until it is told to end.
    await worker.start(`cd /workspace/.results/held; mkdir -p .pending
      read -r stat < /proc/$$/stat; stat=\${stat##*) }; set -- $stat
      printf '{"pid":%d,"start":"%s","place":"%s %s"}' $$ "\${20}" "$(cat /proc/sys/kernel/random/boot_id)" "$(readlink /proc/self/ns/pid)" > .pending/${file}
      touch /workspace/ready; while [ ! -e /workspace/go ]; do sleep 0.05; done`)
    await stack.inSandbox(worker.sandboxId, 'while [ ! -e /workspace/ready ]; do sleep 0.05; done')
    let gone = false
    const deleting = result?.delete().then(() => {
      gone = true
    })
    await stack.inSandbox(worker.sandboxId, 'sleep 0.5')
    expect(gone).toBe(false)
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    await deleting
    expect(await names(worker)).toEqual([])
    await worker.terminate()
    expect([...(await conductor.results('held').list())]).toEqual([])
  })

  it('are read on where a connection to the volume or the sandbox breaks', async () => {
    const body = randomBytes(5_000_000)
    const record = recordFor({ taskId: 'w', name: 'big' }, body)
    let broken = 0
    await using proxy = await startFaultProxy(stack.e2b.url, (request) => {
      const isBody = request.method === 'GET' && /20260114-120000-big(?!\.meta)/.test(request.url ?? '')
      if (!isBody || broken % 2 === 1) return undefined
      broken += 1
      return { kind: 'cut', afterBytes: 2_000_000 }
    })
    const direct = {
      apiKey: stack.e2b.env.E2B_API_KEY ?? '',
      apiUrl: stack.e2b.url,
      sandboxUrl: stack.e2b.url,
    }
    await Volume.create('shared', direct)
    const mounts = { volumeMounts: { '/spool': 'shared' } }
    const sandbox = await Sandbox.create({ ...direct, ...mounts, timeoutMs: 600_000 })
    await sandbox.files.write([
      { path: '/spool/w/20260114-120000-big', data: new Uint8Array(body).buffer },
      { path: '/spool/w/20260114-120000-big.meta.json', data: JSON.stringify(record) },
    ])
    const volume = new E2bVolumeFiles('shared', { ...direct, volumeApiUrl: proxy.url })
    const proxied = await Sandbox.connect(sandbox.sandboxId, { ...direct, sandboxUrl: proxy.url })
    const files = new SandboxFiles(new E2bSandbox(proxied), '/spool')
    for (const [tier, place] of [
      ['volume', volume],
      ['sandbox', files],
    ] as const) {
      broken = 0
      const store = new SpoolStore(tier, tier, place)
      const results = createResults(
        taskSource({ taskId: 'w', manifests: undefined, stores: async () => [store] }),
      )
      const bytes = await (await results.latest())?.bytes()
      expect(broken).toBe(1)
      expect(Buffer.from(bytes ?? []).equals(body)).toBe(true)
    }
    await sandbox.kill()
  })

  it('are not pruned, nor are those that a paused sandbox may still add to', async () => {
    await using conductor = stack.conductor()
    await using stranger = stack.conductor()
    const worker = await conductor.spawnWorker({ taskId: 'alive' })
    await worker.run('echo a > a; persist-result --quiet a')
    const options = { olderThanDays: 0, unsealed: true, tasks: 'alive' }
    const reason = expect.stringContaining('may still store')
    expect(await conductor.prune(options)).toMatchObject({ tasks: [], skipped: [{ reason }] })
    await stack.pauseSandbox(worker.sandboxId)
    expect(await stranger.prune(options)).toMatchObject({ tasks: [], skipped: [{ reason }] })
    await stack.killSandbox(worker.sandboxId)
    expect(await stranger.prune({ ...options, unsealed: false })).toMatchObject({ tasks: [], skipped: [] })
    expect(await stranger.prune(options)).toMatchObject({ tasks: [{ taskId: 'alive', results: 1 }] })
    expect([...(await stranger.results('alive').list())]).toEqual([])
    await worker.kill()
  })
})
