import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { S3Intents } from '../../../src/stores/s3/s3-intents.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'

const INTENT = {
  v: 1,
  task_id: 't',
  spawn_id: 's',
  conductor: 'c',
  created_at: '2026-01-14T12:00:00.000Z',
} as const

/** Intents of a store that answers writes one after the other with these, the last one for ever. */
async function answering(...answers: readonly (readonly [status: number, code: string])[]) {
  let asked = 0
  const answer = (response: ServerResponse): void => {
    const [status, code] = answers[Math.min(asked++, answers.length - 1)] as readonly [number, string]
    response
      .writeHead(status, { etag: '"tag"' })
      .end(status === 200 ? '' : `<Error><Code>${code}</Code></Error>`)
  }
  const server = createServer((request, response) => {
    request.resume().once('end', () => answer(response))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const location = openS3Location({
    bucket: 'bucket',
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
  })
  return {
    intents: new S3Intents(location),
    asked: () => asked,
    [Symbol.asyncDispose]: async () => {
      location.close()
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

const UNDECIDED = [409, 'ConditionalRequestConflict'] as const

it('asks again where S3 cannot say yet who came first, which is not to be down', async () => {
  await using won = await answering(UNDECIDED, UNDECIDED, [200, ''])
  expect(await won.intents.write(INTENT, null)).toBe('"tag"')
  expect(won.asked()).toBe(3)
  await using lost = await answering(UNDECIDED, [412, 'PreconditionFailed'])
  await expect(lost.intents.write(INTENT, '"before"')).rejects.toMatchObject({ code: 'EXISTS' })
})
