import { HeadObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import type { GrantPolicy } from '../../../src/protocol/grant.js'
import { toPolicyFields } from '../../../src/protocol/s3-layout.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { describeEachS3 } from '../../support/s3/servers.js'

const MAX_BYTES = 1000

describeEachS3('a grant', (server) => {
  let at: S3Location
  beforeAll(async () => {
    const { url, region, credentials } = server()
    at = openS3Location({ bucket: await server().createBucket(), endpoint: url, region, credentials })
  })
  afterAll(() => at?.close())

  const mint = async (taskId: string, expiresAt = new Date(Date.now() + 60_000)): Promise<GrantPolicy> => {
    const grant = await mintGrant({ taskId, expiresAt, s3: at, maxResultBytes: MAX_BYTES })
    return grant.s3?.policy as GrantPolicy
  }
  const post = async (
    { url, fields }: GrantPolicy,
    key: string,
    body = 'x',
    more: Record<string, string> = {},
  ): Promise<number> => {
    const form = new FormData()
    const declared = toPolicyFields({ sha256: 'ff', metadata: '{"n":1}' })
    const all = { ...fields, ...declared, 'Content-Type': 'text/plain', ...more, key }
    for (const [name, value] of Object.entries(all)) form.append(name, value)
    form.append('file', new Blob([body]))
    const answer = await fetch(url, { method: 'POST', body: form })
    await answer.text()
    return answer.status
  }
  const exists = async (Key: string): Promise<boolean> => {
    try {
      await at.client.send(new HeadObjectCommand({ Bucket: at.bucket, Key }))
      return true
    } catch (error) {
      if ((error as Error).name === 'NotFound') return false
      throw error
    }
  }

  it('admits results of its own task, with their metadata, any number of times', async () => {
    const policy = await mint('worker-1')
    for (const name of ['a', 'ü b', 'a.meta.json']) {
      const key = `results/worker-1/20260114-120000-${name}`
      const meta = {
        'x-amz-meta-sha256': 'ff',
        'x-amz-meta-metadata': '{"n":1}',
        'Content-Type': 'text/plain',
      }
      expect(await post(policy, key, 'x', meta)).toBeLessThan(300)
      expect(await exists(key)).toBe(true)
    }
  })

  it.each([
    ["another task's prefix", 'results/worker-2/20260114-120000-a'],
    ['a task whose id starts alike', 'results/worker-10/20260114-120000-a'],
    ['the manifests', 'results/.tasks/worker-1.json'],
    ['the bucket’s root', 'a'],
    ['another prefix', 'other/worker-1/20260114-120000-a'],
  ])('is refused for %s', async (_what, key) => {
    expect(await post(await mint('worker-1'), key)).toBe(403)
    expect(await exists(key)).toBe(false)
  })

  it('is refused for a larger body, undeclared metadata, and after its time', async () => {
    const key = 'results/worker-1/20260114-120000-never'
    const policy = await mint('worker-1')
    expect(await post(policy, key, 'x'.repeat(MAX_BYTES + 1))).toBe(400)
    expect(await post(policy, key, 'x', { 'x-amz-meta-other': 'y' })).toBe(403)
    const short = await mint('worker-1', new Date(Date.now() + 1000))
    const { expiration } = JSON.parse(Buffer.from(short.fields.Policy ?? '', 'base64').toString()) as {
      expiration: string
    }
    while (Date.now() <= Date.parse(expiration) + 1000) await new Promise((done) => setImmediate(done))
    expect(await post(short, key)).toBe(403)
    expect(await exists(key)).toBe(false)
  })

  it('is refused when a byte of it is changed', async () => {
    const policy = await mint('worker-1')
    const wider = Buffer.from(policy.fields.Policy ?? '', 'base64')
      .toString()
      .replaceAll('worker-1/', 'worker-2/')
    const forged = { ...policy, fields: { ...policy.fields, Policy: Buffer.from(wider).toString('base64') } }
    expect(await post(forged, 'results/worker-2/20260114-120000-a')).toBe(403)
  })
})

it('cannot be made for a time that has passed', async () => {
  const at = openS3Location({ bucket: 'any', credentials: { accessKeyId: 'a', secretAccessKey: 'b' } })
  await expect(
    mintGrant({ taskId: 'w', expiresAt: new Date(Date.now() - 1), s3: at, maxResultBytes: 1 }),
  ).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  at.close()
})
