import { writeFileSync } from 'node:fs'
import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { describe, expect, it } from 'vitest'
import { startLocalS3 } from '../../../src/local/s3/index.js'
import type { Grant } from '../../../src/protocol/grant.js'
import { faultedImplementations } from '../../conformance/persister/implementations.js'
import { startFaultProxy } from '../../support/persister/fault-proxy.js'
import { makeWorker } from '../../support/persister/worker.js'
import { createClient } from '../../support/s3/client.js'
import { choose, first } from '../../support/thorough.js'

const Bucket = 'bucket'
const SIZE_BYTES = (65 << 20) + 1

describe.each(choose(faultedImplementations, first))('$name', ({ argv }) => {
  it('goes on with its parts when its session ends among them, and a fresh grant is there', async (test) => {
    const owner = { accessKeyId: 'OWNER', secretAccessKey: 'owner' }
    const session = (
      name: string,
    ): { accessKeyId: string; secretAccessKey: string; sessionToken: string } => ({
      accessKeyId: name,
      secretAccessKey: `secret of ${name}`,
      sessionToken: `token of ${name}`,
    })
    const early: ReturnType<typeof session> & { expiresAtMs?: number } = session('EARLY')
    const late = session('LATE')
    await using server = await startLocalS3({ buckets: [Bucket], credentials: [owner, early, late] })
    const grantOf = (keys: ReturnType<typeof session>, task_id: string, minutes: number): string => {
      const expires_at = new Date(Date.now() + minutes * 60_000).toISOString()
      const {
        accessKeyId: access_key_id,
        secretAccessKey: secret_access_key,
        sessionToken: session_token,
      } = keys
      const granted = { access_key_id, secret_access_key, session_token, expires_at }
      const s3 = {
        bucket: Bucket,
        prefix: 'out',
        region: server.region,
        endpoint: proxy.url,
        session: granted,
      }
      return JSON.stringify({ v: 1, task_id, expires_at, s3 } satisfies Grant)
    }
    let refresh = (): void => {}
    await using proxy = await startFaultProxy(server.url, ({ method, url = '' }) => {
      if (method !== 'PUT') return undefined
      // In one request first, which breaks off.
      if (!url.includes('partNumber=')) return { kind: 'reset', afterBytes: 1000 }
      // Four go at once: the fifth comes when one of them has arrived.
      if (url.includes('partNumber=5&')) refresh()
      return undefined
    })
    const worker = await makeWorker(test, argv, {
      name: 'session',
      tier: 's3',
      env: async () => ({}),
      read: async () => undefined,
      keys: async () => [],
    })
    const grantFile = join(worker.folder, 'grant.json')
    refresh = () => {
      early.expiresAtMs = 1
      writeFileSync(grantFile, grantOf(late, worker.taskId, 20))
    }
    await writeFile(grantFile, grantOf(early, worker.taskId, 10))
    await writeFile(join(worker.folder, 'big'), '')
    await truncate(join(worker.folder, 'big'), SIZE_BYTES)
    const env = { WORKER_RESULTS_GRANT_FILE: grantFile }
    expect(await worker.persist(['-q', '--require', 's3', 'big'], { env })).toMatchObject({
      status: 0,
      stderr: '',
    })
    const parts = proxy.requests.filter((line) => line.includes('partNumber='))
    expect(parts.filter((line) => line.includes('partNumber=5&')).length).toBeGreaterThan(1)
    // One upload, and not all of it twice.
    expect(proxy.requests.filter((line) => /\?uploads/.test(line))).toHaveLength(1)
    expect(parts.length).toBeLessThan(10)
    const client = createClient({ ...server, credentials: owner })
    expect((await client.send(new ListMultipartUploadsCommand({ Bucket }))).Uploads ?? []).toEqual([])
    client.destroy()
  })
})
