import { execFile, spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LocalS3, startLocalS3 } from '../../../src/local/s3/index.js'
import { leaveOut } from '../../support/leave-out.js'
import { createClient } from '../../support/s3/client.js'

const run = promisify(execFile)
const Bucket = 'tools'
const hasAwsCli = spawnSync('aws', ['--version']).status === 0
if (!hasAwsCli) leaveOut('local S3 with the AWS CLI', '`aws` is not on PATH')

describe('local S3: other clients', () => {
  let server: LocalS3
  let client: S3Client
  let folder: string

  beforeAll(async () => {
    server = await startLocalS3({ buckets: [Bucket] })
    client = createClient(server)
    folder = await mkdtemp(join(tmpdir(), 's3-tools-'))
  })
  afterAll(async () => {
    client?.destroy()
    await server?.close()
    if (folder !== undefined) await rm(folder, { recursive: true, force: true })
  })

  const textOf = async (Key: string) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket, Key }))
    return Body?.transformToString()
  }

  describe.skipIf(!hasAwsCli)('the AWS CLI', () => {
    const aws = async (...args: string[]) => {
      const env = {
        PATH: process.env.PATH,
        HOME: folder,
        ...server.env,
        AWS_EC2_METADATA_DISABLED: 'true',
      }
      // By its option: Debian's version is older than the environment's AWS_ENDPOINT_URL.
      return (await run('aws', ['--endpoint-url', server.url, ...args], { env })).stdout
    }

    it('copies up, lists, copies down and removes', async () => {
      await writeFile(join(folder, 'in ü.txt'), 'by the cli')
      await aws('s3', 'cp', join(folder, 'in ü.txt'), `s3://${Bucket}/results/worker-1/in ü.txt`)
      expect(await textOf('results/worker-1/in ü.txt')).toBe('by the cli')
      expect(await aws('s3', 'ls', `s3://${Bucket}/results/worker-1/`)).toMatch(/\s10 in ü\.txt/)
      expect(await aws('s3', 'ls', `s3://${Bucket}/`)).toContain('PRE results/')
      await aws('s3', 'cp', '--recursive', `s3://${Bucket}/results`, join(folder, 'out'))
      expect(await readFile(join(folder, 'out/worker-1/in ü.txt'), 'utf8')).toBe('by the cli')
      await aws('s3', 'rm', '--recursive', `s3://${Bucket}/results`)
      await expect(textOf('results/worker-1/in ü.txt')).rejects.toMatchObject({ name: 'NoSuchKey' })
    })

    it('uploads a large file in parts', async () => {
      await writeFile(join(folder, 'large'), Buffer.alloc(20 * 2 ** 20, 5))
      await aws('s3', 'cp', join(folder, 'large'), `s3://${Bucket}/large`)
      const { ContentLength, ETag } = await client.send(new GetObjectCommand({ Bucket, Key: 'large' }))
      expect([ContentLength, ETag]).toEqual([20 * 2 ** 20, expect.stringMatching(/-3"$/)])
    })

    it('says what was wrong when it is refused', async () => {
      const absent = aws('s3', 'cp', `s3://${Bucket}/absent`, join(folder, 'absent'))
      await expect(absent).rejects.toThrow(/404|Not Found/)
    })
  })

  describe('curl --aws-sigv4', () => {
    const curl = async (...args: string[]) => {
      // Through a file, since arguments are visible to every process.
      const { accessKeyId, secretAccessKey } = server.credentials
      const config = join(folder, 'curl.conf')
      await writeFile(config, `user = "${accessKeyId}:${secretAccessKey}"\n`, { mode: 0o600 })
      const sign = ['-K', config, '--aws-sigv4', `aws:amz:${server.region}:s3`]
      return (await run('curl', ['-sS', '-w', '\n%{http_code}', ...sign, ...args])).stdout
    }
    const unsigned = ['-H', 'x-amz-content-sha256: UNSIGNED-PAYLOAD']

    it('puts, gets and lists', async () => {
      await mkdir(join(folder, 'curl'))
      const path = join(folder, 'curl/f')
      await writeFile(path, 'by curl')
      const url = `${server.url}/${Bucket}/curl/%C3%BC%20x`
      expect(await curl(...unsigned, '-H', 'x-amz-meta-a: 1', '-T', path, url)).toBe('\n200')
      expect(await curl(...unsigned, url)).toBe('by curl\n200')
      const listing = await curl(...unsigned, `${server.url}/${Bucket}?list-type=2&prefix=curl%2F`)
      expect(listing).toContain('<Key>curl/ü x</Key>')
    })

    it('is refused before it sends a large body', async () => {
      const path = join(folder, 'refused')
      await writeFile(path, Buffer.alloc(30 * 2 ** 20))
      const answer = await run('curl', [
        ...['-sS', '-w', '\n%{http_code} %{size_upload}', '-H', 'Expect: 100-continue'],
        ...['-T', path, `${server.url}/${Bucket}/refused`],
      ])
      expect(answer.stdout).toMatch(/<Code>AccessDenied<\/Code>.*\n403 0$/s)
    })
  })
})
