import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, it } from 'vitest'
import { carryOnce } from '../../../../src/conductor/end/carry.js'
import { openS3Location } from '../../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../../src/stores/s3/s3-store.js'
import { recordFor } from '../../../support/records.js'

it('ends an upload whose source fails, with what the source said', async (test) => {
  const sockets = new Set<Socket>()
  // Takes everything and never answers, as a store does that waits for the rest of the body.
  const store = createServer((socket) => sockets.add(socket.on('error', () => {}).resume()))
  store.listen(0, '127.0.0.1')
  await once(store, 'listening')
  const location = openS3Location({
    bucket: 'bucket',
    endpoint: `http://127.0.0.1:${(store.address() as AddressInfo).port}`,
    region: 'us-east-1',
    credentials: { accessKeyId: 'nobody', secretAccessKey: 'knows' },
  })
  test.onTestFinished(() => {
    location.close()
    for (const socket of sockets) socket.destroy()
    store.close()
  })
  const record = recordFor({ taskId: 't', name: 'broken' }, Buffer.alloc(100_000))
  let pulls = 0
  const open = async (): Promise<ReadableStream<Uint8Array>> =>
    new ReadableStream({
      async pull(controller) {
        if (pulls++ === 0) return controller.enqueue(new Uint8Array(50_000))
        // The upload has begun by then.
        while (sockets.size === 0) await new Promise(setImmediate)
        throw new Error('the sandbox is out of reach')
      },
    })
  await expect(carryOnce(new S3Store(location), record, { open, from: 'spool' })).rejects.toThrow(
    'the sandbox is out of reach',
  )
})
