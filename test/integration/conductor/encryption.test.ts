import { createHash, randomBytes } from 'node:crypto'
import {
  DeleteBucketEncryptionCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutBucketEncryptionCommand,
} from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ConductorOptions } from '../../../src/conductor/options.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { type ResultsServer, serveResults } from '../../../src/endpoint/index.js'
import type { Result } from '../../../src/results/result.js'
import { makeKeys } from '../../support/sealed.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

const SECRET = 'nobody may know this'
const MEBIBYTE = 1 << 20
const keys = makeKeys()
const KMS_KEY = 'arn:aws:kms:us-east-1:123456789012:key/results'
const encryption = { publicKey: keys.publicKey, privateKeys: [keys.privateKey] }

describe('a conductor with a key', () => {
  const tokenSecret = randomBytes(32).toString('hex')
  let stack: TestStack
  let dir: TempDir
  let server: ResultsServer
  beforeAll(async () => {
    stack = await startTestStack()
    dir = await makeTempDir()
    server = await serveResults({ directory: dir.path, tokenSecrets: [tokenSecret] })
  })
  afterAll(async () => {
    await server?.close()
    await dir?.[Symbol.asyncDispose]()
    await stack?.[Symbol.asyncDispose]()
  })

  /** All that S3 has of a task, bytes and headers. */
  const stored = async (taskId: string): Promise<string> => {
    const { client, bucket: Bucket } = stack.at
    const { Contents = [] } = await client.send(
      new ListObjectsV2Command({ Bucket, Prefix: `results/${taskId}/` }),
    )
    const texts = Contents.map(async ({ Key }) => {
      const { Body, Metadata } = await client.send(new GetObjectCommand({ Bucket, Key }))
      return `${JSON.stringify(Metadata)}\n${await Body?.transformToString('latin1')}`
    })
    return (await Promise.all(texts)).join('\n')
  }

  it('has workers store nothing in clear and nothing that they could read, once each, and reads all of it', async () => {
    await using conductor = stack.conductor({ encryption })
    const worker = await conductor.spawnWorker({
      taskId: 'sealed',
      outputs: ['report.txt', 'plots'],
      undeclared: {},
    })
    const first = await worker.run(
      `printf '${SECRET}' > report.txt && printf 'forgotten: ${SECRET}' > forgotten.txt && mkdir plots &&
       printf 'other: ${SECRET}' > kept.txt && env -u WORKER_RESULTS_ENCRYPTION_KEY persist-result -q kept.txt >/dev/null && printf '${SECRET}' > plots/a.svg &&
       key=$(persist-result -q --require s3 --metadata '{"n":"${'x'.repeat(2500)}"}' report.txt) &&
       node -e 'require("persist-result.js").persistResult(Buffer.from("${SECRET}"), { name: "module.txt" })' && env &&
       grep -rl '${SECRET}' .results; persist-result -r "$key"`,
      { outputs: ['report.txt', 'plots'] },
    )
    expect(first.stderr).toMatch(/^persist-result: sealed\/\S+ is encrypted: .*\n$/)
    expect(first.stdout).toContain(`WORKER_RESULTS_ENCRYPTION_KEY=${keys.publicKey}\n`)
    expect(first.stdout).not.toMatch(/DECRYPTION|PRIVATE|^\.results/m)
    // What it printed is in its certificate.
    await worker.run(`printf '${SECRET}'; kill -9 $$`)
    const receipt = await worker.terminate()
    expect(receipt.results.map(({ tiers, verified }) => [tiers, verified])).toEqual(
      Array.from({ length: 6 }, () => [['s3'], true]),
    )
    expect(await stored('sealed')).not.toContain(SECRET)

    const results = await conductor.results('sealed').list({ strict: true })
    expect(results.map(({ name, encrypted }) => [name, encrypted]).sort()).toEqual(
      [
        'death-certificate.json',
        'kept.txt',
        'module.txt',
        'plots.tar.gz',
        'report.txt',
        'undeclared-outputs.tar.gz',
      ].map((name) => [name, true]),
    )
    const named = (wanted: string): Result | undefined => results.find(({ name }) => name === wanted)
    const texts = results.filter(({ name }) => name.endsWith('.txt')).map((result) => result.text())
    expect((await Promise.all(texts)).sort()).toEqual([SECRET, SECRET, `other: ${SECRET}`])
    const certificate = named('death-certificate.json')
    expect(await certificate?.json()).toMatchObject({
      cause: 'signal',
      log_tail: { stdout: expect.any(String) },
    })
    expect(certificate?.contentType).toBe('application/json')
    await using out = await makeTempDir()
    const plots = await named('plots.tar.gz')?.extract(`${out.path}/plots`)
    expect(plots).toMatchObject({ files: 1, bytes: SECRET.length })
    // What is a result already is not kept twice.
    const undeclared = await named('undeclared-outputs.tar.gz')?.extract(`${out.path}/undeclared`)
    expect(undeclared).toMatchObject({ files: 1, bytes: `forgotten: ${SECRET}`.length })
    const report = named('report.txt')
    expect(report).toMatchObject({ contentType: 'text/plain; charset=utf-8', contentSize: SECRET.length })
    expect(report?.metadata).toEqual({ n: 'x'.repeat(2500) })

    // One that writes only, and one that only reads, after a change of keys.
    await using writer = stack.conductor({ encryption: { publicKey: keys.publicKey } })
    const [locked] = await writer.results('sealed')({ name: '*.txt' }).list({ strict: true })
    await expect(locked?.text()).rejects.toMatchObject({ code: 'DECRYPTION_KEY_MISSING' })
    await using reader = stack.conductor({
      encryption: { privateKeys: [makeKeys().privateKey, keys.privateKey] },
    })
    expect(await (await reader.results('sealed').latest('report.txt'))?.text()).toBe(SECRET)
    await using stranger = stack.conductor()
    const [closed] = await stranger.results('sealed')({ name: '*.txt' }).list()
    await expect(closed?.text()).rejects.toMatchObject({ code: 'DECRYPTION_KEY_MISSING' })
  })

  it('has a death certified for its key also by a process that has none', async () => {
    const first = stack.conductor({ encryption })
    const left = await first.spawnWorker({
      taskId: 'sealed-death',
      command: `printf '${SECRET}'; until [ -e go ]; do sleep 0.05; done; kill -9 $$`,
    })
    // Else it may be stopped before it has printed anything.
    await new Promise((heard) => left.once('stdout', heard))
    await left.detach()
    await first.close()
    await using keyless = stack.conductor()
    const worker = await keyless.attach('sealed-death')
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    expect(await worker.wait()).toMatchObject({ signal: 'SIGKILL', cause: 'signal' })
    expect((await worker.terminate()).certificateKey).toBeDefined()
    expect(await stored('sealed-death')).not.toContain(SECRET)
    await using reader = stack.conductor({ encryption })
    const certificate = await reader.results('sealed-death').latest('death-certificate.json')
    expect(await certificate?.json()).toMatchObject({ taken_over: true, log_tail: { stdout: SECRET } })
  })

  it('does the same by broker, in parts, by its own credentials and over HTTP', async () => {
    const http = { endpoint: server.url, tokenSecret }
    const ways: Record<string, ConductorOptions> = {
      'sealed-broker': { access: 'broker', broker: { maxPutBytes: MEBIBYTE } },
      'sealed-env': { access: 'env' },
      'sealed-http': { s3: null, http },
    }
    const life = async (taskId: string, options: ConductorOptions): Promise<void> => {
      await using conductor = stack.conductor({ ...options, encryption })
      const worker: Worker = await conductor.spawnWorker({ taskId })
      const { stdout, stderr } = await worker.run(
        `head -c ${6 * MEBIBYTE + 1} /dev/urandom > big && persist-result -q --require remote big >&2 && sha256sum < big`,
      )
      expect(stderr).toMatch(/^\S+-big\n$/)
      const digest = stdout.slice(0, 64)
      const { results } = await worker.terminate()
      expect(results).toMatchObject([{ verified: true }])
      const [big] = await conductor.results(taskId).list({ strict: true })
      expect(big).toMatchObject({ encrypted: true, contentSize: 6 * MEBIBYTE + 1 })
      expect(big?.sha256).not.toBe(digest)
      const bytes = await big?.bytes()
      expect(
        createHash('sha256')
          .update(bytes ?? '')
          .digest('hex'),
      ).toBe(digest)
    }
    await Promise.all(Object.entries(ways).map(([taskId, options]) => life(taskId, options)))
    // What another tier took stays as it is when it is moved.
    await using conductor = stack.conductor({ http, encryption })
    expect((await conductor.rehome({ tasks: ['sealed-http'] })).moved).toMatchObject([{ from: ['http'] }])
    const [moved] = await conductor.results('sealed-http')({ tier: 's3' }).list()
    expect(moved).toMatchObject({ encrypted: true, tiers: ['s3', 'http'] })
    expect((await moved?.bytes())?.length).toBe(6 * MEBIBYTE + 1)
  })
})

describe('a conductor whose bucket is to encrypt', () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await startTestStack()
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })

  it('starts nothing while the bucket does otherwise, and counts nothing as delivered that is stored otherwise', async () => {
    const { client, bucket: Bucket } = stack.at
    const { url: endpoint, region, credentials } = stack.s3
    const s3 = { bucket: Bucket, endpoint, region, credentials, sse: 'bucket', kmsKeyId: KMS_KEY } as const
    await using conductor = stack.conductor({ s3 })
    await expect(conductor.spawnWorker({ taskId: 'early' })).rejects.toMatchObject({
      code: 'NOT_ENCRYPTED',
      message: expect.stringContaining('encrypted by AES256 with no KMS key'),
    })
    expect(await stack.sandboxCount()).toBe(0)

    const ApplyServerSideEncryptionByDefault = { SSEAlgorithm: 'aws:kms', KMSMasterKeyID: KMS_KEY } as const
    const ServerSideEncryptionConfiguration = { Rules: [{ ApplyServerSideEncryptionByDefault }] }
    await client.send(new PutBucketEncryptionCommand({ Bucket, ServerSideEncryptionConfiguration }))
    const worker = await conductor.spawnWorker({ taskId: 'late' })
    await worker.run('echo 1 | persist-result -q --require s3 --name as-told -')
    await client.send(new DeleteBucketEncryptionCommand({ Bucket }))
    await worker.run('echo 2 | persist-result -q --require s3 --name otherwise -')
    await expect(worker.terminate()).rejects.toMatchObject({
      code: 'UNDELIVERED',
      message: expect.stringMatching(/-otherwise in s3:\S+ is encrypted by AES256 with no KMS key/),
    })
    const receipt = await worker.terminate({ force: true })
    expect(receipt.results).toMatchObject([{ key: expect.stringMatching(/-as-told$/), verified: true }])
    expect(receipt.undelivered).toMatchObject([{ key: expect.stringMatching(/-otherwise$/) }])
  })
})
