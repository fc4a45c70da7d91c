import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Worker } from '../../../src/conductor/worker.js'
import { s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
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
