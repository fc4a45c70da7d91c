import { randomBytes } from 'node:crypto'
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ConductorOptions } from '../../../src/conductor/options.js'
import type { GrantEvent } from '../../../src/grants/broker/task-broker.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { describeEachS3 } from '../../support/s3/servers.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

const MEBIBYTE = 1 << 20

describeEachS3('a worker without credentials', (server) => {
  let stack: TestStack
  let at: S3Location
  let s3: ConductorOptions['s3'] & {}
  beforeAll(async () => {
    stack = await startTestStack()
    const { url, region, credentials } = server()
    s3 = { bucket: await server().createBucket(), endpoint: url, region, credentials }
    at = openS3Location(s3)
  })
  afterAll(async () => {
    at?.close()
    await stack?.[Symbol.asyncDispose]()
  })

  it('stores what its conductor signs for, small and big, and each is told of', async () => {
    await using conductor = stack.conductor({ s3, access: 'broker' })
    const granted: GrantEvent[] = []
    const big = randomBytes(70 * MEBIBYTE)
    const worker = await conductor.spawnWorker({
      taskId: 'by-broker',
      files: { '/workspace/big.bin': big },
    })
    worker.on('grant', (event) => granted.push(event))
    const { exitCode, stderr } = await worker.run(
      `echo hi > small && : > empty && persist-result --require s3 small && persist-result --require s3 --metadata '{"note":"${'x'.repeat(3000)}"}' empty && persist-result --require s3 big.bin; env > /workspace/env; cat /proc/$$/environ >> /workspace/env`,
    )
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: expect.not.stringContaining('failed') })
    const receipt = await worker.terminate()
    expect(receipt.undelivered).toEqual([])
    expect(receipt.results.map(({ tiers }) => tiers)).toEqual([['s3'], ['s3'], ['s3']])
    const results = await conductor.results('by-broker').list()
    expect(results.map(({ name, size }) => [name, size]).sort()).toEqual([
      ['big.bin', big.length],
      ['empty', 0],
      ['small', 3],
    ])
    expect(
      Buffer.compare((await results.find(({ name }) => name === 'big.bin')?.bytes()) ?? big.subarray(1), big),
    ).toBe(0)
    expect(results.find(({ name }) => name === 'empty')?.metadata).toEqual({ note: 'x'.repeat(3000) })
    expect(granted.map(({ op }) => op)).toEqual([
      'put',
      'put',
      'create',
      ...Array.from({ length: 5 }, () => 'parts'),
      'complete',
    ])
    const parts = granted.flatMap((event) => event.parts ?? []).sort()
    expect(parts).toEqual([1, 2, 3, 4, 5])
    expect(JSON.stringify(granted)).not.toMatch(/Signature|authorization/i)
    const { Uploads = [] } = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
    expect(Uploads).toEqual([])
  })

  describe('a session', () => {
    it('is all that it gets of the role, and stores by itself', async (test) => {
      const { roleArn } = server()
      if (roleArn === undefined) return test.skip('this server has no STS')
      await using conductor = stack.conductor({ s3, access: 'session', session: { roleArn } })
      const worker = await conductor.spawnWorker({
        taskId: 'by-session',
        files: { '/workspace/big.bin': randomBytes(70 * MEBIBYTE) },
      })
      const { exitCode, stderr } = await worker.run(
        'echo hi > small && persist-result --require s3 small && persist-result --require s3 big.bin',
      )
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: expect.not.stringContaining('failed') })
      expect((await worker.terminate()).results.map(({ tiers }) => tiers)).toEqual([['s3'], ['s3']])
    })
  })
})
