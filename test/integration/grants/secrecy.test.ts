import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Conductor } from '../../../src/conductor/conductor.js'
import type { Access } from '../../../src/conductor/options.js'
import { toNodeListener } from '../../../src/endpoint/node/node-listener.js'
import type { Grant } from '../../../src/protocol/grant.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { type FaultProxy, s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { makeKeys } from '../../support/sealed.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { choose, last } from '../../support/thorough.js'

const BROKER_TOKEN_SECRET = 'secret of a broker that somebody else reaches'
const keys = makeKeys()
const HTTP_TOKEN_SECRET = 'secret of an endpoint that nobody reaches'
/** What signatures, tokens and keys look like wherever they come from. */
const shapes: readonly RegExp[] = [
  /signature["':=\s<>/]{0,20}[0-9a-f]{64}/i,
  /X-Amz-Security-Token/i,
  /"session_token"/,
  /AWS4-HMAC-SHA256 Credential/,
  /Bearer \S{20}/,
  /stu1\.[\w-]{10,}/,
]
/** Looks at every process all the time, and at all files at the end; grants and answers are where secrets belong. */
const WATCH = `
const fs = require('node:fs')
const seen = new Set()
const look = () => {
  for (const pid of fs.readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(pid)) continue
    for (const file of ['cmdline', 'comm', 'environ']) {
      try { seen.add(fs.readFileSync('/proc/' + pid + '/' + file, 'utf8').replaceAll('\\0', ' ')) } catch {}
    }
  }
  if (fs.existsSync('/tmp/stop')) return console.log([...seen].join('\\n'))
  setTimeout(look, 5)
}
look()`
const COMMAND = `node /tmp/watch.cjs & watcher=$!
for i in 1 2 3; do echo $i > r$i; persist-result --metadata '{"n":1}' r$i; done
head -c 3000000 /dev/zero > big; persist-result big
busybox sh /workspace/.results/.worker/*/bin/persist-result.sh r3
env; cat /proc/$$/environ | tr '\\0' '\\n'
touch /tmp/stop; wait $watcher`

describeEachS3(
  'with faults all along,',
  (server) => {
    let stack: TestStack
    let proxy: FaultProxy
    let at: S3Location
    let count = 0
    beforeAll(async () => {
      stack = await startTestStack()
      proxy = await startFaultProxy(server().url, ({ method = '', url = '', headers }) => {
        if (!/worker-secret/.test(url) && method !== 'POST') return undefined
        count += 1
        const sent = headers.authorization ?? url
        if (count % 5 === 1) {
          const told = `<SignatureProvided>${sent}</SignatureProvided>`
          const body = `<Error><Code>SignatureDoesNotMatch</Code><Message>No match</Message>${told}</Error>`
          // STS is believed at once when it refuses, and nothing would be spawned: there it could not answer.
          return { kind: 'answer', status: url === '/' ? 503 : 403, body }
        }
        if (count % 5 === 2) return s3Fault(503, 'SlowDown')
        if (count % 5 === 3) return { kind: 'reset', afterBytes: 0 }
        return undefined
      })
      const { region, credentials } = server()
      at = openS3Location({
        bucket: await server().createBucket(),
        endpoint: server().url,
        region,
        credentials,
      })
    })
    afterAll(async () => {
      at?.close()
      await proxy?.[Symbol.asyncDispose]()
      await stack?.[Symbol.asyncDispose]()
    })

    /** All that was said, and what must not have been. */
    const life = async (
      access: Access,
      brokerUrl?: string,
      onConductor: (conductor: Conductor) => void = () => {},
    ): Promise<{ readonly said: string; readonly secrets: readonly string[] }> => {
      const { region, credentials, roleArn } = server()
      const taskId = `worker-secret-${access}-${brokerUrl === undefined ? 'files' : 'https'}`
      const said: unknown[] = []
      const secrets: string[] = []
      await using conductor = stack.conductor({
        access,
        // Its own results are in clear but once, or they would hide what is in them.
        encryption: {
          privateKeys: [keys.privateKey],
          ...(access === 'session' ? { publicKey: keys.publicKey } : {}),
        },
        broker: { url: brokerUrl, ...(brokerUrl === undefined ? {} : { tokenSecret: BROKER_TOKEN_SECRET }) },
        s3: { bucket: at.bucket, endpoint: proxy.url, region, credentials },
        http: { endpoint: 'http://127.0.0.1:9/results', tokenSecret: HTTP_TOKEN_SECRET },
        ...(roleArn === undefined ? {} : { session: { roleArn } }),
      })
      onConductor(conductor)
      const warned = (warning: Error): unknown => said.push(String(warning))
      process.on('warning', warned)
      try {
        const worker = await conductor.spawnWorker({
          taskId,
          files: { '/tmp/watch.cjs': WATCH },
          env: { WORKER_RESULTS_DEADLINE_SECONDS: '2' },
        })
        for (const event of ['state', 'stdout', 'stderr', 'exit', 'problem', 'grant'] as const) {
          worker.on(event, (value: unknown) => said.push(event, inspected(value)))
        }
        const grant = `/workspace/.results/.worker/${taskId}/grant.json`
        const { stdout } = await worker.run(`base64 -w 0 ${grant}`)
        secrets.push(...secretsOf(JSON.parse(Buffer.from(stdout, 'base64').toString()) as Grant))
        // Printing it is the test's own doing, and this very text no secret's form.
        said.length = 0
        const { stderr } = await worker.run(COMMAND)
        said.push(stderr)
        // Some of it went wrong, or the test would say nothing.
        expect(stderr).toMatch(/storage failed/)
        const files = await worker.run(
          `grep -rIl . /workspace /tmp 2>/dev/null | grep -v -e '/grant.json$' -e '/broker/' -e '/bin/' -e '/watch.cjs$' | while read -r f; do echo "== $f"; cat "$f"; done`,
        )
        said.push(files.stdout)
        expect(files.stdout).toMatch(/meta\.json/)
        try {
          said.push(JSON.stringify(await worker.terminate()))
        } catch (error) {
          said.push(inspected(error))
          said.push(JSON.stringify(await worker.kill()))
        }
      } finally {
        process.off('warning', warned)
      }
      const { Contents = [] } = await at.client.send(new ListObjectsV2Command({ Bucket: at.bucket }))
      for (const { Key } of Contents) {
        const object = await at.client.send(new GetObjectCommand({ Bucket: at.bucket, Key }))
        const text = (await object.Body?.transformToString()) ?? ''
        said.push(Key, JSON.stringify(object.Metadata), text.slice(0, 100_000))
      }
      return { said: said.map(String).join('\n'), secrets }
    }

    /** A life whose requests are POSTed, to a conductor that is not always well, and then repeats what it was told. */
    const lifeByHttps = async (): ReturnType<typeof life> => {
      let handler: ((request: Request) => Promise<Response>) | undefined
      let requests = 0
      const listener = toNodeListener(async (request) => {
        requests += 1
        const told = `${request.headers.get('authorization')}`
        if (requests % 3 === 1) return new Response(`busy: ${told}`, { status: 503 })
        if (requests % 7 === 2) return new Response(`not you: ${told}`, { status: 401 })
        return handler === undefined ? new Response('', { status: 503 }) : handler(request)
      })
      const http = createServer((request, response) => void listener(request, response))
      http.listen(0, '127.0.0.1')
      await once(http, 'listening')
      try {
        const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/`
        const lived = await life('broker', url, (conductor) => {
          handler = conductor.handler
        })
        expect(requests).toBeGreaterThan(1)
        return lived
      } finally {
        http.closeAllConnections()
        await new Promise((closed) => http.close(closed))
      }
    }

    const ways = ['policy', 'broker', 'broker over HTTP', 'session'] as const
    // By file or over HTTP, a broker's answers are the same.
    describe.each(choose(ways, (way) => way !== 'broker'))('a life by %s', (way) => {
      it('prints and stores no signature, token or key', async (test) => {
        if (way === 'session' && server().roleArn === undefined) {
          return test.skip('this server has no STS')
        }
        const { said, secrets } = way === 'broker over HTTP' ? await lifeByHttps() : await life(way)
        // The endpoint's token, and by whatever means S3 is reached.
        expect(secrets.length).toBeGreaterThan(way === 'broker' ? 0 : 1)
        for (const shape of shapes) {
          // With what is around it, to be found.
          const at = shape.exec(said)?.index
          expect(at === undefined ? undefined : said.slice(Math.max(0, at - 600), at)).toBeUndefined()
        }
        const { accessKeyId: _, secretAccessKey } = server().credentials
        const pem = keys.privateKey.split('\n').slice(1, -2)
        const der = Buffer.from(pem.join(''), 'base64')
        const scalar = der.subarray(-32)
        const ours = [
          ...[secretAccessKey, HTTP_TOKEN_SECRET, BROKER_TOKEN_SECRET, stack.e2b.env.E2B_API_KEY ?? '-'],
          ...[...pem, scalar.toString('hex'), scalar.toString('base64url'), scalar.toString('base64')],
        ]
        for (const secret of [...ours, ...secrets]) {
          expect(secret.length).toBeGreaterThan(15)
          expect(said.includes(secret) ? said.slice(0, said.indexOf(secret)).slice(-600) : '').toBe('')
        }
        // What it encrypts for is no secret, and may be seen.
        if (way === 'session') expect(said).toContain(keys.publicKey)
        expect(said).not.toMatch(/WORKER_RESULTS_GRANT=|WORKER_RESULTS_TOKEN=|AWS_(ACCESS|SECRET|SESSION)_/)
      })
    })
  },
  choose(s3Servers(), last),
)

/** Whatever of a grant is of use to somebody else. */
function secretsOf({ s3, http }: Grant): string[] {
  const { policy, session, broker } = s3 ?? {}
  const all = [
    policy?.fields['X-Amz-Signature'],
    session?.secret_access_key,
    session?.session_token,
    broker?.token,
    http?.token,
  ]
  return all.filter((secret) => secret !== undefined)
}

/** An error with all its causes and whatever else hangs on it; a plain value as JSON. */
function inspected(value: unknown): string {
  if (!(value instanceof Error)) return JSON.stringify(value) ?? ''
  const own = JSON.stringify(value, Object.getOwnPropertyNames(value))
  return `${value.stack}\n${own}\n${value.cause === undefined ? '' : inspected(value.cause)}`
}
