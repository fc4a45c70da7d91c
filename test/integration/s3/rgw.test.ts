import { setTimeout as delay } from 'node:timers/promises'
import { HeadObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { describe, expect, it } from 'vitest'
import { assumeRole } from '../../support/s3/assume-role.js'
import { startChildScript } from '../../support/s3/child-script.js'
import { createClient } from '../../support/s3/client.js'
import { refusalOf } from '../../support/s3/failures.js'
import type { RgwAccess } from '../../support/s3/rgw.js'
import { joinRgw, s3Servers } from '../../support/s3/servers.js'

const hasRgw = s3Servers().some(({ name }) => name === 'rgw')

// s3Servers() says, or fails over, why it is left out.
describe.runIf(hasRgw)('Ceph RGW for tests', () => {
  it('does not outlive a process that is killed', async () => {
    await using child = await startChildScript(`
      import { startRgw } from './rgw.js'
      console.log(JSON.stringify((await startRgw()).access))
    `)
    const { url } = (await child.nextMessage()) as RgwAccess
    expect((await fetch(url)).status).toBe(200)
    await child.kill()
    // The guard is told by the closing pipe, in its own time.
    while (await answers(url)) await delay(10)
  })

  it('says what its programs said when it does not start', async () => {
    await using child = await startChildScript(`
      import { startRgw } from './rgw.js'
      process.env.CEPH_ARGS = '--no-such-option'
      try {
        await startRgw()
        console.log(JSON.stringify('started'))
      } catch (error) {
        console.log(JSON.stringify(error.message))
      }
    `)
    const message = await child.nextMessage()
    expect(message).toMatch(/Ceph RGW did not start: .*monmaptool: too many arguments/s)
  })

  it('issues sessions that a policy narrows to a prefix', async () => {
    await using server = await joinRgw()
    const Bucket = await server.createBucket()
    const credentials = await assumeRole(server, {
      Version: '2012-10-17',
      Statement: [{ Effect: 'Allow', Action: ['s3:PutObject'], Resource: [`arn:aws:s3:::${Bucket}/mine/*`] }],
    })
    const session = createClient({ ...server, credentials })
    const owner = createClient(server)
    try {
      const put = (Key: string) => session.send(new PutObjectCommand({ Bucket, Key, Body: 'x' }))
      await put('mine/a')
      expect(await refusalOf(put('other/a'))).toMatchObject({ status: 403, code: 'AccessDenied' })
      await owner.send(new HeadObjectCommand({ Bucket, Key: 'mine/a' }))
    } finally {
      session.destroy()
      owner.destroy()
    }
  })
})

async function answers(url: string): Promise<boolean> {
  try {
    await fetch(url)
    return true
  } catch {
    return false
  }
}
