import { GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Access } from '../../../src/conductor/options.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { type FaultProxy, s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { choose, last } from '../../support/thorough.js'

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
    for (const file of ['cmdline', 'comm']) {
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
          return { kind: 'answer', status: 403, body }
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

    const life = async (access: Access): Promise<string> => {
      const { region, credentials, roleArn } = server()
      const taskId = `worker-secret-${access}`
      const said: unknown[] = []
      await using conductor = stack.conductor({
        access,
        s3: { bucket: at.bucket, endpoint: proxy.url, region, credentials },
        http: { endpoint: 'http://127.0.0.1:9/results', tokenSecret: HTTP_TOKEN_SECRET },
        ...(roleArn === undefined ? {} : { session: { roleArn } }),
      })
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
      return said.map(String).join('\n')
    }

    describe.each(['policy', 'broker', 'session'] as const)('a life by %s', (access) => {
      it('prints and stores no signature, token or key', async (test) => {
        if (access === 'session' && server().roleArn === undefined) {
          return test.skip('this server has no STS')
        }
        const said = await life(access)
        for (const shape of shapes) {
          // With what is around it, to be found.
          const at = shape.exec(said)?.index
          expect(at === undefined ? undefined : said.slice(Math.max(0, at - 600), at)).toBeUndefined()
        }
        const { accessKeyId: _, secretAccessKey } = server().credentials
        for (const secret of [secretAccessKey, HTTP_TOKEN_SECRET, stack.e2b.env.E2B_API_KEY ?? '-']) {
          expect(said.includes(secret)).toBe(false)
        }
        expect(said).not.toMatch(/WORKER_RESULTS_GRANT=|WORKER_RESULTS_TOKEN=|AWS_(ACCESS|SECRET|SESSION)_/)
      })
    })
  },
  choose(s3Servers(), last),
)

/** An error with all its causes and whatever else hangs on it; a plain value as JSON. */
function inspected(value: unknown): string {
  if (!(value instanceof Error)) return JSON.stringify(value) ?? ''
  const own = JSON.stringify(value, Object.getOwnPropertyNames(value))
  return `${value.stack}\n${own}\n${value.cause === undefined ? '' : inspected(value.cause)}`
}
