import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { ConductorError } from '../../../src/errors.js'
import { startLocalS3 } from '../../../src/local/s3/index.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startFaultProxy } from '../../support/persister/fault-proxy.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { makeTempDir } from '../../support/temp-dir.js'

describe('a conductor whose S3', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })
  afterEach(async () => {
    expect(await stack.sandboxCount()).toBe(0)
  })

  const storeOne = async (conductor: Conductor, taskId: string): Promise<Worker> => {
    const worker = await conductor.spawnWorker({ taskId, command: 'echo x | persist-result --name r -' })
    // Whatever becomes of the delivery, the command's own status is what it is.
    expect(await worker.wait()).toMatchObject({ outcome: 'succeeded', exitCode: 0 })
    return worker
  }
  const s3 = (more: object) => ({
    bucket: stack.at.bucket,
    endpoint: stack.s3.url,
    credentials: stack.s3.credentials,
    ...more,
  })

  it('bucket does not exist says so and keeps the sandbox', async () => {
    await using conductor = stack.conductor({ s3: s3({ bucket: 'no-such-bucket' }) })
    const worker = await storeOne(conductor, 'wrong-bucket')
    await expect(worker.terminate()).rejects.toMatchObject({
      code: 'UNDELIVERED',
      message: expect.stringMatching(/NoSuchBucket/),
    })
    const results = conductor.results('elsewhere')
    await expect(results.list()).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(/no-such-bucket/),
    })
    await expect(results.get('elsewhere/20260114-120000-x')).rejects.toMatchObject({ code: 'INVALID_OPTION' })
    // The manifest cannot be written either; only force ends it.
    await worker.kill()
  })

  it('refuses its key says so and keeps the sandbox', async () => {
    const credentials = { ...stack.s3.credentials, secretAccessKey: 'wrong' }
    await using conductor = stack.conductor({ s3: s3({ credentials }) })
    const worker = await storeOne(conductor, 'wrong-key')
    await expect(worker.terminate()).rejects.toMatchObject({
      code: 'UNDELIVERED',
      message: expect.stringMatching(/SignatureDoesNotMatch/),
    })
    await expect(conductor.results('other').list()).rejects.toMatchObject({
      code: 'ACCESS_DENIED',
      retryable: false,
    })
    await worker.kill()
  })

  it('was down for a while delivers once it is back', async () => {
    await using dir = await makeTempDir()
    const options = { dataDir: dir.path, buckets: ['kept'], credentials: [stack.s3.credentials] }
    const first = await startLocalS3(options)
    const { port, url } = first
    await first.close()
    await using conductor = stack.conductor({ s3: s3({ bucket: 'kept', endpoint: url }) })
    const worker = await conductor.spawnWorker({
      taskId: 'was-down',
      // The worker's own patience, which is minutes where nobody says otherwise.
      env: { WORKER_RESULTS_DEADLINE_SECONDS: '1' },
      command: 'echo x > r && persist-result --quiet r',
    })
    await worker.wait()
    await expect(worker.terminate()).rejects.toMatchObject({ code: 'UNDELIVERED', retryable: true })
    expect(worker.state).toBe('exited')
    await using _back = await startLocalS3({ ...options, port })
    expect(await worker.terminate()).toMatchObject({
      results: [{ tiers: ['s3'], verified: true }],
      undelivered: [],
    })
    expect(await (await conductor.results('was-down').latest('r'))?.text()).toBe('x\n')
  })

  it('is away when a sandbox vanishes that is being finished has nothing told as lost', async () => {
    let isDown = false
    let sandboxId = ''
    let vanished: Promise<void> | undefined
    await using proxy = await startFaultProxy(stack.s3.url, (request) => {
      if (!isDown) return undefined
      vanished ??= stack.killSandbox(sandboxId)
      void vanished.then(() => request.socket.destroy())
      return { kind: 'hang' }
    })
    const conductor = stack.conductor({ s3: s3({ endpoint: proxy.url }) })
    const worker = await storeOne(conductor, 'vanished')
    ;({ sandboxId } = worker)
    isDown = true
    expect(await worker.terminate()).toMatchObject({
      sealed: false,
      undelivered: [{ reason: expect.stringMatching(/not every place could be asked/) }],
    })
    isDown = false
    await conductor.close({ timeoutMs: 60_000 })
    const at = openS3Location(s3({}))
    const manifest = await new S3Manifests(at).read('vanished').finally(() => at.close())
    expect(manifest).toMatchObject({
      results: expect.arrayContaining([expect.objectContaining({ name: 'r' })]),
    })
    expect(manifest?.attempts[0]).not.toHaveProperty('undelivered')
  })

  it('is away while a worker is ended by force has what it took told once it is back', async () => {
    await using dir = await makeTempDir()
    const options = { dataDir: dir.path, buckets: ['kept'], credentials: [stack.s3.credentials] }
    const first = await startLocalS3(options)
    const { port, url } = first
    const conductor = stack.conductor({ s3: s3({ bucket: 'kept', endpoint: url }) })
    const worker = await storeOne(conductor, 'taken')
    await first.close()
    const call = new AbortController()
    const receipt = await worker.kill({ signal: call.signal })
    call.abort(new ConductorError('CLOSED', 'that call is over'))
    expect(receipt).toMatchObject({ sealed: false, undelivered: [{ key: expect.stringMatching(/-r$/) }] })
    await using _back = await startLocalS3({ ...options, port })
    await conductor.close({ timeoutMs: 60_000 })
    const at = openS3Location(s3({ bucket: 'kept', endpoint: url }))
    const manifest = await new S3Manifests(at).read('taken').finally(() => at.close())
    expect(manifest).toMatchObject({ complete: true, results: [{ name: 'r' }] })
    expect(manifest?.attempts[0]).not.toHaveProperty('undelivered')
  })
})
