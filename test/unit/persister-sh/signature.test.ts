import { once } from 'node:events'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { sign } from 'aws4'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken: string | undefined
}

const EXPIRED = 'expired-token'
let server: Server
let seen: IncomingMessage[] = []

beforeAll(async () => {
  server = createServer((request, response) => {
    seen.push(request)
    // A session that ran out, in the words of S3.
    const expired = request.headers['x-amz-security-token'] === EXPIRED
    const body = expired ? '<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>' : ''
    request.resume().on('end', () => response.writeHead(expired ? 400 : 200).end(body))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
})

/** What an independent signer makes of the request that arrived. */
function expectedAuthorization(
  request: IncomingMessage,
  region: string,
  credentials: Credentials,
): string | undefined {
  const names = /SignedHeaders=([^,]*)/.exec(request.headers.authorization ?? '')?.[1]?.split(';') ?? []
  const headers = Object.fromEntries(names.map((name) => [name, String(request.headers[name])]))
  const { accessKeyId, secretAccessKey } = credentials
  const signed = sign(
    { service: 's3', region, method: request.method ?? '', path: request.url ?? '', headers },
    { accessKeyId, secretAccessKey },
  )
  return signed.headers?.Authorization as string | undefined
}

const printable = (min: number, max: number): fc.Arbitrary<string> =>
  fc
    .string({ unit: fc.constantFrom(...'ABCxyz019+/=!%$\'"\\`#;&* '), minLength: min, maxLength: max })
    .filter((text) => text.trim() === text && text !== '')

/** A PATH with everything the script needs except perl, so that it signs without. */
async function pathWithoutPerl(folder: string): Promise<string> {
  const bin = join(folder, 'bin')
  await mkdir(bin)
  for (const name of [
    'date',
    'dd',
    'sha256sum',
    'mv',
    'sync',
    'rm',
    'mkdir',
    'readlink',
    'od',
    'tr',
    'curl',
    'awk',
    'sed',
    'wc',
    'tee',
    'cat',
  ]) {
    const path = findProgram(name)
    if (path === undefined) throw new Error(`${name} is not installed`)
    await symlink(path, join(bin, name))
  }
  return bin
}

describe.each(shells)('signatures in $name', ({ argv }) => {
  it('cover the headers that a session is to send, wherever in the alphabet', async (test) => {
    const folder = await scratch(test)
    const { port } = server.address() as AddressInfo
    const headers = {
      'x-amz-tagging': 'team=a%20%26%20b',
      'x-amz-acl': 'private',
      'x-amz-server-side-encryption-aws-kms-key-id': 'arn:aws:kms:us-east-1:1:key/k',
      'x-amz-server-side-encryption': 'aws:kms',
    }
    const session = {
      access_key_id: 'AKIDEXAMPLE',
      secret_access_key: 'secret',
      session_token: 'token/+=',
      expires_at: '2099-01-01T00:00:00.000Z',
    }
    const endpoint = `http://127.0.0.1:${port}`
    const s3 = { bucket: 'bucket', prefix: 'p', region: 'eu-central-2', endpoint, session, headers }
    const WORKER_RESULTS_GRANT = JSON.stringify({ v: 1, task_id: 't', expires_at: session.expires_at, s3 })
    seen = []
    const env = { WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), WORKER_RESULTS_GRANT }
    const words = [...argv, SCRIPT, '--require', 's3', '-', '-n', 'x']
    expect(await run(words, { input: 'x', env })).toMatchObject({ status: 0, stderr: '' })
    const [request] = seen
    if (request === undefined) throw new Error('no request')
    expect(request.url).toMatch(/^\/bucket\/p\/t\//)
    expect(request.headers).toMatchObject({ ...headers, 'x-amz-security-token': session.session_token })
    const credentials = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret', sessionToken: undefined }
    expect(request.headers.authorization?.replaceAll(', ', ',')).toBe(
      expectedAuthorization(request, s3.region, credentials)?.replaceAll(', ', ','),
    )
    for (const name of Object.keys(headers)) expect(request.headers.authorization).toMatch(`;${name}`)
  })

  it('are made with the session of a grant that was written meanwhile, once', async (test) => {
    const folder = await scratch(test)
    const { port } = server.address() as AddressInfo
    const grant = (session_token: string, expires_at: string): string => {
      const session = { access_key_id: 'AKIDEXAMPLE', secret_access_key: 'secret', session_token, expires_at }
      const place = { bucket: 'b', prefix: '', region: 'us-east-1', endpoint: `http://127.0.0.1:${port}` }
      return JSON.stringify({ v: 1, task_id: 't', expires_at, s3: { ...place, session } })
    }
    const env = {
      WORKER_ID: 't',
      WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
      WORKER_RESULTS_GRANT: grant(EXPIRED, '2098-01-01T00:00:00.000Z'),
    }
    seen = []
    const store = (more: Record<string, string> = {}): ReturnType<typeof run> =>
      run([...argv, SCRIPT, '-q', '-', '-n', 'x'], { input: 'x', env: { ...env, ...more } })
    const refused = await store()
    expect(refused.stderr).toMatch(/^persist-result: S3 storage failed: ExpiredToken: expired \(PUT\)\n$/)
    expect(seen).toHaveLength(1)
    // Each time that it is read it says something else.
    const fifo = join(folder, 'fifo')
    await run(['mkfifo', fifo])
    seen = []
    const stored = store({ WORKER_RESULTS_GRANT_FILE: fifo })
    await writeFile(fifo, grant(EXPIRED, '2098-02-01T00:00:00.000Z'))
    await vi.waitFor(() => expect(seen).toHaveLength(1), 20_000)
    await writeFile(fifo, grant('fresh', '2099-01-01T00:00:00.000Z'))
    expect(await stored).toMatchObject({ status: 0, stderr: '' })
    // What was left of the first attempt goes with it.
    const tokens = seen.map(({ headers }) => headers['x-amz-security-token'])
    expect(tokens).toEqual([EXPIRED, 'fresh', 'fresh'])
  })

  it.each(['with perl', 'without perl'])(
    'are what another signer computes, %s',
    async (how) => {
      const cleanups: (() => unknown)[] = []
      try {
        const folder = await scratch({ onTestFinished: (fn) => void cleanups.push(fn as () => unknown) })
        const PATH = how === 'with perl' ? (process.env.PATH ?? '') : await pathWithoutPerl(folder)
        const { port } = server.address() as AddressInfo
        await fc.assert(
          fc.asyncProperty(
            fc.record({
              secretAccessKey: fc.oneof(
                printable(1, 40),
                printable(61, 61),
                printable(60, 60),
                printable(62, 120),
              ),
              sessionToken: fc.option(
                printable(1, 300)
                  .map((token) => token.replaceAll(' ', ''))
                  .filter((token) => token !== ''),
                { nil: undefined },
              ),
              region: fc.constantFrom('us-east-1', 'eu-central-2', 'auto'),
              name: fc.constantFrom(
                'plain.txt',
                'a b',
                "ü'!*()~",
                '100%.csv',
                '日本 \u{1f600}',
                'x=1&y=2?#z',
              ),
              metadata: fc.constantFrom({}, { a: 'two  blanks   three' }, { 'é "': ['\\', '\n'] }),
            }),
            async ({ secretAccessKey, sessionToken, region, name, metadata }) => {
              seen = []
              const result = await run(
                [...argv, SCRIPT, '--require', 's3', '-', '-n', name, '-m', JSON.stringify(metadata)],
                {
                  input: 'x',
                  env: {
                    PATH,
                    WORKER_ID: 't',
                    WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
                    WORKER_RESULTS_S3_BUCKET: 'bucket',
                    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
                    AWS_SECRET_ACCESS_KEY: secretAccessKey,
                    AWS_REGION: region,
                    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}/base/`,
                    ...(sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: sessionToken }),
                  },
                },
              )
              expect(result).toMatchObject({ status: 0, stderr: '' })
              expect(seen).toHaveLength(1)
              const [request] = seen
              if (request === undefined) throw new Error('no request')
              expect(request.headers['x-amz-security-token']).toBe(sessionToken)
              expect(request.headers['if-none-match']).toBe('*')
              expect(JSON.parse(String(request.headers['x-amz-meta-metadata']))).toEqual(metadata)
              const credentials = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey, sessionToken }
              expect(request.headers.authorization?.replaceAll(', ', ',')).toBe(
                expectedAuthorization(request, region, credentials)?.replaceAll(', ', ','),
              )
            },
          ),
          { numRuns: 12 },
        )
      } finally {
        for (const cleanup of cleanups) await cleanup()
      }
    },
    60_000,
  )
})
