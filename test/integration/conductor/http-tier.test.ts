import { randomBytes } from 'node:crypto'
import { PutObjectCommand } from '@aws-sdk/client-s3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ResultsServer, serveResults } from '../../../src/endpoint/index.js'
import { startLocalS3 } from '../../../src/local/s3/index.js'
import type { TierProblem } from '../../../src/results/result.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startPlainEndpoint } from '../../e2e/plain-endpoint.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

describe('the HTTP tier', () => {
  const tokenSecret = randomBytes(32).toString('hex')
  let stack: TestStack
  let dir: TempDir
  let server: ResultsServer
  beforeEach(async () => {
    stack = await startTestStack()
    dir = await makeTempDir()
    server = await serveResults({ directory: dir.path, tokenSecrets: [tokenSecret] })
  })
  afterEach(async () => {
    await server?.close()
    await dir?.[Symbol.asyncDispose]()
    await stack?.[Symbol.asyncDispose]()
  })

  it('takes what S3 cannot, and gives it back when the sandbox is gone', async () => {
    await using conductor = stack.conductor({ s3: null, http: { endpoint: server.url, tokenSecret } })
    const worker = await conductor.spawnWorker({
      taskId: 'by-http',
      command: 'mkdir plots && echo svg > plots/a.svg && persist-result --metadata \'{"n":"ü"}\' plots',
    })
    await worker.wait()
    expect((await worker.terminate()).results).toMatchObject([{ tiers: ['http'], verified: true }])
    await using stranger = stack.conductor({ s3: null, http: { endpoint: server.url, tokenSecret } })
    const [plots, ...others] = await stranger.results('by-http').list()
    expect(others).toEqual([])
    expect(plots).toMatchObject({
      name: 'plots.tar.gz',
      archive: 'tar.gz',
      metadata: { n: 'ü' },
      tiers: ['http'],
    })
    await plots
      ?.extract(`${dir.path}/../${dir.path.split('/').at(-1)}-out`)
      .then(({ files }) => expect(files).toBe(1))
  })

  it('hands each worker a token that is worth nothing outside its task', async () => {
    await using conductor = stack.conductor({ s3: null, http: { endpoint: server.url, tokenSecret } })
    const worker = await conductor.spawnWorker({ taskId: 'thief' })
    const steal = `node -e '
      const grant = JSON.parse(require("fs").readFileSync(process.env.WORKER_RESULTS_LOCAL_DIR + "/.worker/thief/grant.json"))
      fetch(grant.http.endpoint + "?task_id=victim", { headers: { authorization: "Bearer " + grant.http.token } })
        .then(({ status }) => console.log(status))'`
    expect((await worker.run(steal)).stdout).toBe('403\n')
    await worker.terminate()
  })

  it('is where the conductor carries what the worker could not, while S3 is away; S3 gets it later', async () => {
    const { port } = new URL(server.url)
    const { bucket } = stack.at
    await using s3Dir = await makeTempDir()
    const s3Options = { dataDir: s3Dir.path, buckets: [bucket], credentials: [stack.s3.credentials] }
    const s3 = await startLocalS3(s3Options)
    const s3Port = s3.port
    await s3.close()
    await server.close()
    const { region, credentials } = stack.s3
    const options = {
      s3: { bucket, endpoint: s3.url, region, credentials },
      http: { endpoint: server.url, tokenSecret },
    }
    await using conductor = stack.conductor(options)
    const worker = await conductor.spawnWorker({
      taskId: 'carried',
      env: { WORKER_RESULTS_DEADLINE_SECONDS: '1' },
      command:
        'printf "a\\r\\n%s" "--x" > \'q"r\' && persist-result --quiet --metadata \'{"n":[1]}\' \'q"r\' && touch /tmp/said; sleep 1000',
    })
    await stack.inSandbox(worker.sandboxId, 'until [ -e /tmp/said ]; do sleep 0.02; done')
    await expect(worker.terminate()).rejects.toMatchObject({ code: 'UNDELIVERED' })
    // That one was stopped; what is run instead is not.
    expect(await worker.run('true')).toMatchObject({ exitCode: 0 })
    server = await serveResults({ directory: dir.path, tokenSecrets: [tokenSecret], port: Number(port) })
    expect(await worker.terminate()).toMatchObject({
      outcome: 'succeeded',
      sealed: false,
      results: [{ tiers: ['http'], verified: true }],
      undelivered: [],
    })
    await using _s3 = await startLocalS3({ ...s3Options, port: s3Port })
    const { moved, failed } = await conductor.rehome({ tasks: ['carried'] })
    expect(failed).toEqual([])
    expect(moved).toMatchObject([{ from: ['http'], sizeBytes: 6 }])
    const [result] = await conductor.results('carried').list({ strict: true })
    expect(result).toMatchObject({ tiers: ['s3', 'http'], metadata: { n: [1] } })
    expect(await result?.text()).toBe('a\r\n--x')
    expect((await conductor.rehome({ tasks: ['carried'] })).moved).toEqual([])
    const at = openS3Location(options.s3)
    const Key = `results/${result?.key}`
    await at.client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: 'forged' }))
    at.close()
    const told: unknown[] = []
    const onProblem = ({ key, tier, error }: TierProblem): void => void told.push([key, tier, error.code])
    for (const tasks of ['carried', { tasks: ['carried'] }]) {
      const [mended] = await conductor.results(tasks, { onProblem }).list()
      expect(await mended?.text()).toBe('a\r\n--x')
      expect(told.splice(0)).toEqual([[result?.key, 's3', 'INTEGRITY']])
    }
  })

  it('may have more of a lost worker than S3: its end is written down once it has answered', async () => {
    const { port } = new URL(server.url)
    const conductor = stack.conductor({ id: 'half', http: { endpoint: server.url, tokenSecret } })
    const command = 'echo kept >kept && persist-result --quiet kept'
    const worker = await conductor.spawnWorker({ taskId: 'half-seen', command })
    await worker.wait()
    await server.close()
    await stack.killSandbox(worker.sandboxId)
    const manifests = new S3Manifests(stack.at)
    expect(await worker.terminate()).toMatchObject({ outcome: 'lost', sealed: false })
    expect(await manifests.read('half-seen')).toBeUndefined()
    server = await serveResults({ directory: dir.path, tokenSecrets: [tokenSecret], port: Number(port) })
    await conductor.close({ timeoutMs: 60_000 })
    const names = (await manifests.read('half-seen'))?.results.map(({ name }) => name)
    expect(names?.sort()).toEqual(['death-certificate.json', 'kept'])
  })

  it('of a server that only takes the POST keeps results, and says that it cannot list them', async () => {
    await using plain = await startPlainEndpoint()
    await using conductor = stack.conductor({ s3: null, http: { endpoint: plain.url } })
    const worker = await conductor.spawnWorker({
      taskId: 'plain',
      command: 'echo x | persist-result --name r -',
    })
    await worker.wait()
    expect((await worker.terminate()).results).toMatchObject([{ tiers: ['http'], verified: false }])
    await expect(conductor.results('plain').list()).rejects.toMatchObject({ code: 'UNSUPPORTED' })
    // Beside a tier that can list, it is told of and stands in nobody's way.
    await using both = stack.conductor({ http: { endpoint: plain.url } })
    const list = await both.results('plain').list({ strict: true })
    expect(list.unavailable).toMatchObject([{ tier: 'http', error: { code: 'UNSUPPORTED' } }])
    for await (const result of both.results('plain')) throw new Error(result.key)
  })
})
