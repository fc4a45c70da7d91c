import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { startLocalS3 } from '../../../src/local/s3/index.js'
import type { Manifest } from '../../../src/protocol/manifest.js'
import { S3Intents } from '../../../src/stores/s3/s3-intents.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'

const INTENT = {
  v: 1,
  task_id: 't',
  spawn_id: 's',
  conductor: 'c',
  created_at: '2026-01-14T12:00:00.000Z',
} as const

const MANIFEST: Manifest = {
  v: 1,
  task_id: 't',
  sealed_at: '',
  outcome: 'succeeded',
  exit: null,
  complete: true,
  attempts: [],
  results: [],
}

/** Intents of a store that answers requests one after the other with these, the last one for ever. */
async function answering(...answers: readonly (readonly [status: number, code: string])[]) {
  let asked = 0
  const answer = (response: ServerResponse): void => {
    const [status, code] = answers[Math.min(asked++, answers.length - 1)] as readonly [number, string]
    response
      .writeHead(status, { etag: '"tag"' })
      .end(status < 300 ? '' : `<Error><Code>${code}</Code></Error>`)
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

it('deletes without a condition where the store knows none', async () => {
  await using simple = await answering([200, ''], [501, 'NotImplemented'], [204, ''])
  await simple.intents.prune('t', { startedBefore: new Date() })
  expect(simple.asked()).toBe(3)
})

it('forgets nothing that was begun or sealed again since it was read', async ({ onTestFinished }) => {
  const server = await startLocalS3({ buckets: ['bucket'] })
  const { url: endpoint, region, credentials } = server
  const at = openS3Location({ bucket: 'bucket', endpoint, region, credentials })
  const racing = openS3Location({ bucket: 'bucket', endpoint, region, credentials })
  onTestFinished(async () => {
    at.close()
    racing.close()
    await server.close()
  })
  let meanwhile = async (): Promise<unknown> => undefined
  racing.client.middlewareStack.add(
    (next, { commandName }) =>
      async (args) => {
        if (commandName === 'DeleteObjectCommand') await meanwhile()
        return next(args)
      },
    { step: 'initialize' },
  )
  const startedBefore = new Date()
  const intents = new S3Intents(at)
  await intents.write(INTENT, null)
  await intents.close(INTENT)
  const later = { ...INTENT, spawn_id: 'later', created_at: new Date().toISOString() }
  meanwhile = async () => intents.write(later, undefined)
  await new S3Intents(racing).prune('t', { startedBefore })
  expect((await intents.read('t'))?.intent).toEqual(later)

  const manifests = new S3Manifests(at)
  const sealAgain = (sealed_at: string) => manifests.update('t', () => ({ ...MANIFEST, sealed_at }))
  await sealAgain('2026-01-14T12:00:00.000Z')
  meanwhile = async () => sealAgain('2026-01-15T12:00:00.000Z')
  const isMeant = ({ sealed_at }: Manifest): boolean => sealed_at.startsWith('2026-01-14')
  expect(await new S3Manifests(racing).delete('t', isMeant)).toBe(false)
  expect((await manifests.read('t'))?.sealed_at).toBe('2026-01-15T12:00:00.000Z')
  expect(await manifests.delete('t', () => true)).toBe(true)
  expect(await manifests.delete('t', () => true)).toBe(true)
})
