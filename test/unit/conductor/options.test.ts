import { describe, expect, it } from 'vitest'
import { Conductor } from '../../../src/conductor/conductor.js'
import { resolveOptions } from '../../../src/conductor/options.js'
import { makeKeys } from '../../support/sealed.js'

const nothing = { env: {} }

describe('Conductor options', () => {
  it.each([
    [{ bukket: 'x' }, /Conductor: unknown option "bukket"/],
    [{ s3: { bucket: 'results', prefx: 'x' } }, /unknown option "prefx"/],
    [{ s3: { bucket: '' } }, /s3\.bucket: must be a bucket name/],
    [{ s3: { bucket: 'results', endpoint: 'ftp://x' } }, /s3\.endpoint: must be an http or https URL/],
    [{ s3: { bucket: 'results', prefix: 'a/../b' } }, /s3\.prefix: must be path segments/],
    [{ http: { endpoint: 'not a url' } }, /http\.endpoint/],
    [{ maxWorkers: 0 }, /maxWorkers/],
    [{ maxWorkers: 1.5 }, /maxWorkers/],
    [{ access: 'root' }, /access/],
    [{ localDir: 'relative' }, /localDir: must be an absolute path/],
    [{ maxResultBytes: 50 * 1024 ** 4 }, /maxResultBytes/],
    [{ broker: { url: 'https://x.example/' } }, /broker: url needs tokenSecret/],
    [{ session: { roleArn: 'x' } }, /session\.roleArn/],
    [{ id: 'a b' }, /id: must be/],
    [{ encryption: { publicKey: 'x' } }, /encryption\.publicKey must be a public key/],
    [{ encryption: { privateKeys: ['x'] } }, /encryption\.privateKeys\.0 must be an X25519 private key/],
    [{ env: { WORKER_RESULTS_ENCRYPTION_KEY: 'x' } }, /WORKER_RESULTS_ENCRYPTION_KEY must be/],
    [{ env: { AWS_ENDPOINT_URL: 'localhost:9000' } }, /^AWS_ENDPOINT_URL must be an http or https URL$/],
    [{ env: { E2B_API_URL: 'nonsense' } }, /^E2B_API_URL must be/],
    [{ env: { WORKER_RESULTS_DECRYPTION_KEY: 'x' } }, /WORKER_RESULTS_DECRYPTION_KEY must be/],
    [{ env: { WORKER_RESULTS_DECRYPTION_KEY_FILE: '/no/such' } }, /_FILE: \/no\/such cannot be read/],
  ])('%j is refused, by name', (options, message) => {
    expect(() => new Conductor({ ...nothing, ...options } as never)).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTION',
        retryable: false,
        message: expect.stringMatching(message),
      }),
    )
  })

  it('take keys from the environment, where they are not given or switched off', () => {
    const [ours, other] = [makeKeys(), makeKeys()]
    const env = {
      WORKER_RESULTS_ENCRYPTION_KEY: ours.publicKey,
      WORKER_RESULTS_DECRYPTION_KEY: ours.privateKey + other.privateKey,
    }
    const { encryption } = resolveOptions({ env })
    expect(encryption?.publicKey).toBe(ours.publicKey)
    expect([ours, other].map(({ keyId }) => encryption?.decryptor.has(keyId))).toEqual([true, true])
    expect(resolveOptions({ env, encryption: null }).encryption).toBeUndefined()
    expect(resolveOptions({ env: {} }).encryption).toBeUndefined()
    const given = resolveOptions({ env, encryption: { publicKey: other.publicKey, privateKeys: [] } })
    expect(given.encryption?.publicKey).toBe(other.publicKey)
    expect(given.encryption?.decryptor.has(ours.keyId)).toBe(false)
  })

  it('never repeat a secret in an error', () => {
    const secret = ['very', 'secret'].join('-')
    const attempt = (): unknown =>
      new Conductor({
        ...nothing,
        s3: { bucket: 'x', credentials: { accessKeyId: 'a', secretAccessKey: secret } },
      })
    expect(attempt).toThrow(expect.objectContaining({ message: expect.not.stringContaining(secret) }))
  })

  it('come from the environment under the names that users know', () => {
    const env = {
      WORKER_RESULTS_S3_BUCKET: 'from-env',
      WORKER_RESULTS_S3_PREFIX: '/deep/prefix/',
      AWS_ACCESS_KEY_ID: 'key',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_DEFAULT_REGION: 'eu-west-1',
      AWS_ENDPOINT_URL: 'http://all.example',
      AWS_ENDPOINT_URL_S3: 'http://s3.example',
      WORKER_RESULTS_ENDPOINT: 'https://api.example.com/results',
      WORKER_RESULTS_LOCAL_DIR: '',
      E2B_TEMPLATE_ID: 'my-template',
    }
    expect(resolveOptions({ env })).toMatchObject({
      s3: {
        bucket: 'from-env',
        prefix: 'deep/prefix',
        region: 'eu-west-1',
        endpoint: 'http://s3.example',
        credentials: { accessKeyId: 'key', secretAccessKey: 'secret' },
      },
      http: { endpoint: 'https://api.example.com/results' },
      localDir: '/workspace/.results',
      template: 'my-template',
      access: 'presigned',
    })
    expect(resolveOptions({ env, s3: null, http: null })).toMatchObject({ s3: undefined, http: undefined })
    expect(resolveOptions({ env: {} })).toMatchObject({ s3: undefined, http: undefined, maxWorkers: 50 })
  })
})

describe('spawnWorker options', () => {
  it.each([
    [{ comand: 'x' }, /spawnWorker: unknown option "comand"/],
    [{ taskId: '.tasks' }, /taskId: must start with a letter or digit/],
    [{ taskId: 'a/b' }, /taskId: may contain only/],
    [{ command: '' }, /command/],
    [{ files: { relative: 'x' } }, /files.*absolute path/],
    [{ files: { '/a"b': 'x' } }, /files.*must not contain quotes/],
    [{ files: { '/x': 7 } }, /files.*string or Uint8Array/],
    [{ outputs: [''] }, /outputs/],
    [{ env: { 'not a name': 'x' } }, /env.*variable name/],
    [{ env: { WORKER_RESULTS_GRANT: '{}' } }, /env: must not set/],
    [{ timeoutMs: -1 }, /timeoutMs/],
    [{ cwd: 'here' }, /cwd/],
    [{ access: 'env' }, /access: 'env' needs an S3 bucket/],
    [{ access: 'broker' }, /access: 'broker' needs an S3 bucket/],
    [{ retries: { lost: 1 } }, /retries\.lost: needs a command/],
    [{ access: 'session' }, /access: 'session' needs session.roleArn/],
  ])('%j is refused, by name, and nothing is sent', async (options, message) => {
    const conductor = new Conductor({ env: { E2B_API_URL: 'http://127.0.0.1:9' } })
    await expect(conductor.spawnWorker(options as never)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message),
    })
    await conductor.close()
  })

  it('a control plane that does not answer is unavailable, not a bug', async () => {
    await using conductor = new Conductor({
      env: { E2B_API_URL: 'http://127.0.0.1:9', E2B_API_KEY: 'e2b_00' },
    })
    await expect(conductor.spawnWorker({ taskId: 'w' })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      retryable: true,
    })
    expect(conductor.workers.size).toBe(0)
  })

  it('a missing API key is said plainly', async () => {
    await using conductor = new Conductor({ env: { E2B_API_URL: 'http://127.0.0.1:9' } })
    await expect(conductor.spawnWorker({ taskId: 'w' })).rejects.toMatchObject({
      code: 'ACCESS_DENIED',
      message: expect.stringMatching(/API key/),
    })
  })
})
