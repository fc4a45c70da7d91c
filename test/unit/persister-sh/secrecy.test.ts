import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { chmod, mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { type HttpReceiver, startHttpReceiver } from '../../support/persister/http-receiver.js'
import { finish, run, start } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

const SECRETS = {
  secretKey: 'SECRETKEYsecretkeySECRETKEY',
  session: 'SESSIONtokenSESSIONtoken',
  bearer: 'BEARERtokenBEARERtoken',
  signature: 'POLICYsignaturePOLICYsignature',
  signed: 'SIGNEDbyBROKERsignedBYbroker',
}
const TOOLS = [
  'curl',
  'openssl',
  'sha256sum',
  'awk',
  'od',
  'tr',
  'sed',
  'perl',
  'dd',
  'tee',
  'mv',
  'sync',
  'date',
  'cat',
  'wc',
  'rm',
  'mkdir',
  'base64',
  'find',
  'sort',
  'cut',
  'printf',
  'env',
  'sleep',
  'readlink',
]

/** Puts a wrapper around every tool, which notes its arguments and what lies in files at that moment. */
async function wrapTools(folder: string, without: readonly string[]): Promise<string> {
  const bin = join(folder, 'bin')
  await mkdir(bin)
  const grep = findProgram('grep') ?? 'grep'
  for (const name of TOOLS) {
    const path = findProgram(name)
    if (path === undefined || without.includes(name)) continue
    const words = Object.values(SECRETS)
      .map((secret) => `-e ${secret}`)
      .join(' ')
    await writeFile(
      join(bin, name),
      `#!/bin/sh
for word in ${name} "$@"; do printf '%s\\n' "$word" >>'${folder}/arguments'; done
${grep} -rlF ${words} '${folder}/spool' '${folder}/tmp' >>'${folder}/leaks' 2>/dev/null
exec ${path} "$@"
`,
    )
    await chmod(join(bin, name), 0o755)
  }
  return bin
}

const grantOf = (url: string, means: object): object => ({
  v: 1,
  task_id: 't',
  expires_at: '2099-01-01T00:00:00.000Z',
  s3: { bucket: 'b', prefix: 'p', region: 'r', endpoint: url, ...means },
  http: { endpoint: url, token: SECRETS.bearer },
})
const grantTo = (url: string): object =>
  grantOf(url, { policy: { url, fields: { key: '', 'x-amz-signature': SECRETS.signature }, max_bytes: 1e9 } })
const grants = {
  grant: grantTo,
  session: (url: string) =>
    grantOf(url, {
      session: {
        access_key_id: 'AKIDEXAMPLE',
        secret_access_key: SECRETS.secretKey,
        session_token: SECRETS.session,
        expires_at: '2099-01-01T00:00:00.000Z',
      },
    }),
  broker: () =>
    grantOf(broker.url, {
      broker: { v: 1, url: broker.url, token: SECRETS.bearer, max_bytes: 1e9, put_bytes: 1e9 },
    }),
}

/** A broker that signs for itself, and is the store besides. */
async function startBroker(): Promise<{ url: string; seen: string[]; close: () => Promise<void> }> {
  const seen: string[] = []
  let url = ''
  const server = createServer((request, response) => {
    const said: Buffer[] = []
    request.on('data', (chunk: Buffer) => said.push(chunk))
    request.once('end', () => {
      seen.push(`${request.method} ${request.headers.authorization}`)
      if (request.method === 'PUT') return response.end()
      const { id } = JSON.parse(Buffer.concat(said).toString()) as { id: string }
      const lines = [
        `stu-broker 1 ${id}`,
        'expires 2099-01-01T00:00:00.000Z',
        `request - PUT ${url}store?X-Amz-Signature=${SECRETS.signature}`,
        `header authorization ${SECRETS.signed}`,
        `end ${id}`,
      ]
      response.end(lines.map((line) => `${line}\n`).join(''))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return { url, seen, close }
}

let receiver: HttpReceiver
let broker: Awaited<ReturnType<typeof startBroker>>
beforeAll(async () => {
  receiver = await startHttpReceiver()
  broker = await startBroker()
})
afterAll(async () => {
  await broker.close()
  await receiver[Symbol.asyncDispose]()
})

describe.each(shells)('secrets in $name', ({ argv }) => {
  const ways = {
    credentials: {
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: SECRETS.secretKey,
      AWS_SESSION_TOKEN: SECRETS.session,
      WORKER_RESULTS_S3_BUCKET: 'b',
    },
    bearer: { WORKER_RESULTS_TOKEN: SECRETS.bearer },
    grant: {},
    session: {},
    broker: {},
  }
  it.each([
    ['credentials', [] as string[]],
    ['credentials', ['perl']],
    ['credentials', ['perl', 'sha256sum']],
    ['bearer', []],
    ['grant', []],
    ['session', []],
    ['session', ['perl']],
    ['broker', []],
  ] as const)('of %s are in no argument and no file, without %j', async (way, without) => {
    const cleanups: (() => unknown)[] = []
    try {
      const folder = await scratch({ onTestFinished: (fn) => void cleanups.push(fn as () => unknown) })
      await mkdir(join(folder, 'tmp'))
      const PATH = await wrapTools(folder, without)
      const url = receiver.url
      const env = {
        PATH,
        TMPDIR: join(folder, 'tmp'),
        WORKER_ID: 't',
        WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
        // Nobody listens there, so that trying again is seen as well.
        AWS_ENDPOINT_URL_S3: 'http://127.0.0.1:1',
        WORKER_RESULTS_DEADLINE_SECONDS: '1',
        ...ways[way],
        ...(way === 'bearer' ? { WORKER_RESULTS_ENDPOINT: url } : {}),
        ...(way in grants
          ? { WORKER_RESULTS_GRANT: JSON.stringify(grants[way as keyof typeof grants](url)) }
          : {}),
      }
      const long = JSON.stringify({ a: 'x'.repeat(5000) })
      const result = await run([...argv, SCRIPT, '-', '-n', 'f', '-m', long], { env, input: 'x' })
      expect(result.status).toBe(0)
      const words = await readFile(join(folder, 'arguments'), 'utf8')
      expect(words).toContain('curl\n-q\n')
      if (way === 'broker') {
        const asked = [`POST Bearer ${SECRETS.bearer}`, `PUT ${SECRETS.signed}`]
        expect(broker.seen.splice(0)).toEqual(asked)
      }
      for (const secret of Object.values(SECRETS)) {
        expect(words).not.toContain(secret)
        expect(words).not.toContain(Buffer.from(secret).toString('hex'))
        expect(result.stderr + result.stdout).not.toContain(secret)
      }
      expect(await readFile(join(folder, 'leaks'), 'utf8')).toBe('')
      // Nothing of ours is left behind either.
      expect(await readdir(join(folder, 'tmp'))).toEqual([])
      expect((await readdir(join(folder, 'spool/t'))).filter((name) => name.startsWith('.tmp-'))).toEqual([])
    } finally {
      for (const cleanup of cleanups) await cleanup()
    }
  })
})

/** Adds the command lines of a process group, sampled as fast as they can be read, until `done`. */
async function watchGroup(group: number, done: Promise<unknown>, lines: Set<string>): Promise<void> {
  let running = true
  const ended = done.finally(() => {
    running = false
  })
  while (running) {
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
        if (stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2] !== String(group)) continue
        lines.add(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))
      } catch {
        // It ended between being listed and being read.
      }
    }
  }
  await ended
}

/** An S3 that breaks off whole bodies and takes its time over parts. */
async function startSlowS3(test: Cleanup): Promise<string> {
  const server = createServer((request, response) => {
    const { method, url = '' } = request
    const whole = method === 'PUT' && !url.includes('partNumber')
    if (whole) request.once('data', () => request.socket.destroy())
    request.resume().once('end', () => {
      if (method === 'HEAD') response.writeHead(404).end()
      else if (url.includes('uploads=')) response.end('<R><UploadId>of-the-upload</UploadId></R>')
      else if (url.includes('partNumber'))
        setTimeout(() => response.writeHead(200, { etag: '"e"' }).end(), 300)
      else response.end('<R/>')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  test.onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

describe.each(shells)('secrets in $name', ({ name: shell, argv }) => {
  it('are in no command line of any process, as long as a store takes', async (test) => {
    const folder = await scratch(test)
    const place = { WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool') }
    const withKeys = {
      ...place,
      AWS_ENDPOINT_URL_S3: await startSlowS3(test),
      WORKER_RESULTS_S3_BUCKET: 'b',
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: SECRETS.secretKey,
      AWS_SESSION_TOKEN: SECRETS.session,
      WORKER_RESULTS_ENDPOINT: receiver.url,
      WORKER_RESULTS_TOKEN: SECRETS.bearer,
    }
    const withGrant = { ...place, WORKER_RESULTS_GRANT: JSON.stringify(grantTo(receiver.url)) }
    await writeFile(join(folder, 'big'), '')
    await truncate(join(folder, 'big'), 65 << 20)
    const lines = new Set<string>()
    for (const env of [withKeys, withGrant]) {
      // Needs the token besides whatever S3 needs.
      const words = [...argv, SCRIPT, '-q', '--require', 'http', join(folder, 'big')]
      const child = start(words, { env, group: true })
      const finished = finish(child)
      await watchGroup(child.pid ?? 0, finished, lines)
      expect((await finished).status).toBe(0)
    }
    expect(receiver.posts.length).toBeGreaterThan(0)
    const all = [...lines].join('\n')
    expect(all, shell).toMatch(/curl\0-q\0[^\n]*\/dev\/fd\/4/)
    for (const secret of Object.values(SECRETS)) {
      expect(all).not.toContain(secret)
      expect(all).not.toContain(Buffer.from(secret).toString('hex'))
    }
  })
})
