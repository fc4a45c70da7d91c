import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Granter } from '../../../src/grants/granter.js'
import { mintGrant } from '../../../src/grants/mint-grant.js'
import { WorkerGrant } from '../../../src/grants/worker-grant.js'
import type { Grant } from '../../../src/protocol/grant.js'
import { E2bSandboxes } from '../../../src/sandbox/e2b-sandboxes.js'
import type { RemoteSandbox } from '../../../src/sandbox/remote-sandbox.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'
import { joinRgw, s3Servers } from '../../support/s3/servers.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

const hasRgw = s3Servers().some(({ name }) => name === 'rgw')
const PATH = '/workspace/.results/.worker/task/grant.json'

describe('a grant in a sandbox', () => {
  let stack: TestStack
  let sandbox: RemoteSandbox
  beforeAll(async () => {
    stack = await startTestStack()
    const { E2B_API_KEY: apiKey } = stack.e2b.env
    const sandboxes = new E2bSandboxes({ apiKey, apiUrl: stack.e2b.url, sandboxUrl: stack.e2b.url })
    sandbox = await sandboxes.create({ timeoutMs: 600_000, metadata: {}, envs: {} })
  })
  afterAll(async () => {
    await stack?.[Symbol.asyncDispose]()
  })
  const read = async (): Promise<Grant> => JSON.parse((await sandbox.run(`cat ${PATH}`)).stdout) as Grant
  const options = { taskId: 'task', localDir: '/workspace/.results' } as const

  it('is replaced whole when its worker’s time is extended, for its owner’s eyes only', async () => {
    const granter = new Granter({ s3: stack.at, maxResultBytes: 1000 })
    const soon = new Date(Date.now() + 60_000)
    const grant = await WorkerGrant.issue(granter, { ...options, access: 'policy' }, soon)
    await sandbox.writeFiles(grant.files)
    await grant.serve(sandbox)
    expect((await read()).expires_at).toBe(soon.toISOString())
    // Whoever reads it all the time never meets half of one.
    const reading = sandbox.run(
      `node -e 'const { readFileSync: r } = require("fs"); const end = Date.now() + 1000; let n = 0; while (Date.now() < end) { JSON.parse(r("${PATH}", "utf8")); n++ } console.log(n)'`,
    )
    const later = new Date(Date.now() + 3_600_000)
    for (let i = 0; i < 5; i++) await grant.refresh(sandbox, later)
    expect(await reading).toMatchObject({ exitCode: 0 })
    expect((await read()).expires_at).toBe(later.toISOString())
    expect((await sandbox.run(`stat -c %a ${PATH}`)).stdout).toBe('600\n')
    await grant.end()
  })

  it.runIf(hasRgw)('is renewed by itself when its session ends before its worker', async () => {
    await using server = await joinRgw()
    const { url, region, credentials, roleArn = '' } = server
    const at = openS3Location({ bucket: await server.createBucket(), endpoint: url, region, credentials })
    const granter = new Granter({ s3: at, maxResultBytes: 1000, session: { roleArn, maxSeconds: 900 } })
    const until = new Date(Date.now() + 7_200_000)
    const renewed = { ...options, access: 'session', renewBeforeMs: 899_000 } as const
    const grant = await WorkerGrant.issue(granter, renewed, until)
    await sandbox.writeFiles(grant.files)
    const first = await read()
    expect(Date.parse(first.expires_at)).toBeLessThan(Date.now() + 901_000)
    await grant.serve(sandbox)
    await vi.waitFor(
      async () => {
        const second = await read()
        expect(second.s3?.session?.session_token).not.toBe(first.s3?.session?.session_token)
        expect(Date.parse(second.expires_at)).toBeGreaterThan(Date.parse(first.expires_at))
      },
      { timeout: 30_000, interval: 100 },
    )
    await grant.end()
    at.close()
  })

  it('is followed by a fresh one when its worker is woken after it has ended', async () => {
    const taskId = 'late'
    const first = stack.conductor({ access: 'policy' })
    const command =
      "trap 'echo x | persist-result --quiet --require s3 --name x - && exit 0' TERM; while :; do sleep 0.05; done"
    const left = await first.spawnWorker({ taskId, command })
    await left.detach()
    await first.close()
    const folder = `/workspace/.results/.worker/${taskId}`
    const expiresAt = new Date(Date.now() + 1000)
    const grant = await mintGrant({ taskId, expiresAt, s3: stack.at, maxResultBytes: 1000 })
    // As if it had been asleep for long: its time is up, and so is that of its grant.
    await stack.inSandbox(
      left.sandboxId,
      `cd ${folder} && sed -i 's/"deadline_at":"[^"]*"/"deadline_at":"2026-01-14T12:00:00.000Z"/' worker.json &&
       printf %s '${JSON.stringify(grant)}' > grant.json && until [ "$(date +%s)" -gt ${Math.ceil(expiresAt.getTime() / 1000)} ]; do sleep 0.05; done`,
    )
    await stack.pauseSandbox(left.sandboxId)
    await using second = stack.conductor({ access: 'policy' })
    const worker = await second.attach(taskId)
    // Its time is up: it is stopped, and stores by its own means what it has.
    expect(await worker.wait()).toMatchObject({ outcome: 'timed_out', exitCode: 0 })
    const { results } = await worker.terminate()
    expect(results).toContainEqual(expect.objectContaining({ sizeBytes: 2, tiers: ['s3'], verified: true }))
  })

  it('answers no more after its end', async () => {
    const granter = new Granter({ s3: stack.at, maxResultBytes: 1000 })
    const grant = await WorkerGrant.issue(
      granter,
      { ...options, access: 'broker' },
      new Date(Date.now() + 60_000),
    )
    await grant.install(sandbox)
    await grant.serve(sandbox)
    const ask = async (id: string, looks: number): Promise<string> => {
      const folder = '/workspace/.results/.worker/task/broker'
      const request = JSON.stringify({ v: 1, id, op: 'get', key: 'task/20260114-120000-x' })
      const { stdout } = await sandbox.run(
        `cd ${folder} && printf %s '${request}' > .x && mv .x ${id}.request && for i in $(seq ${looks}); do grep -q '^end ' ${id}.answer 2>/dev/null && break; sleep 0.02; done; cat ${id}.answer 2>/dev/null | head -n 1`,
      )
      return stdout
    }
    expect(await ask('one', 1500)).toBe('stu-broker 1 one\n')
    // Whatever else lies there, and wherever it leads: honest requests are answered, and nothing else is.
    const { stdout: hostile } = await sandbox.run(
      `cd /workspace/.results/.worker/task/broker && mkfifo pipe.request && ln -s /dev/zero zero.request && ln -s /proc/self/environ env.request &&
       ln -s loop.request loop.request && mkdir folder.request && truncate -s 6M huge.request && echo '{"v":1,"id":"other","op":"get"}' > self.request &&
       for i in $(seq 300); do : > many-$i.request; done
       echo '{"v":1,"id":"honest","op":"get","key":"task/20260114-120000-x"}' > .honest
       for i in $(seq 300); do [ $((i % 20)) != 1 ] || { cp .honest .again && mv .again honest.request; }; grep -qs '^end ' honest.answer && break; sleep 0.1; done
       ls | grep answer | grep -v many`,
    )
    expect(hostile.split('\n')).toContain('honest.answer')
    expect(hostile).not.toMatch(/(pipe|zero|env|loop|folder|self|other)\.answer/)
    await grant.end()
    expect(await ask('two', 50)).toBe('')
  })
})
