import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { Sandbox } from 'e2b'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { ConductorOptions } from '../../../src/conductor/options.js'
import type { GrantEvent } from '../../../src/grants/broker/task-broker.js'
import type { Result } from '../../../src/results/result.js'
import { openS3Location, type S3Location } from '../../../src/stores/s3/s3-location.js'
import { s3Fault, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { describeEachS3, s3Servers } from '../../support/s3/servers.js'
import { startTestStack, type TestStack } from '../../support/stack.js'
import { choose, first, last } from '../../support/thorough.js'
import { recordOf } from './attack-table.js'

const MEBIBYTE = 1 << 20
/** What a worker calls, by implementation. */
const PROGRAMS: readonly (readonly [string, string])[] = [
  ['node', 'persist-result'],
  ['sh', 'busybox sh /workspace/.results/.worker/*/bin/persist-result.sh'],
]

describeEachS3(
  'a worker without credentials',
  (server) => {
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

    it.for(PROGRAMS)(
      'stores what its conductor signs for, small and big, by %s, and each is told of',
      async ([name, program]) => {
        await using conductor = stack.conductor({ s3, access: 'broker', broker: { maxPutBytes: MEBIBYTE } })
        const granted: GrantEvent[] = []
        const taskId = `by-broker-${name}`
        const worker = await conductor.spawnWorker({ taskId })
        worker.on('grant', (event) => granted.push(event))
        const { exitCode, stdout, stderr } = await worker.run(
          `head -c ${20 * MEBIBYTE} /dev/urandom > big && echo hi > small && : > empty && p='${program} --quiet --require s3' &&
       $p small && $p --metadata '{"note":"${'x'.repeat(3000)}"}' empty && $p big && sha256sum < big && env`,
        )
        expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
        const digest = /^([0-9a-f]{64}) {2}-$/m.exec(stdout)?.[1]
        expect(stdout).not.toMatch(/WORKER_RESULTS_GRANT=|AWS_(ACCESS|SECRET|SESSION)|Signature/)
        const receipt = await worker.terminate()
        expect(receipt.undelivered).toEqual([])
        expect(receipt.results.map(({ tiers }) => tiers)).toEqual([['s3'], ['s3'], ['s3']])
        const results = await conductor.results(taskId).list()
        const named = (name: string): Result | undefined => results.find((result) => result.name === name)
        expect(await named('small')?.text()).toBe('hi\n')
        expect(named('big')).toMatchObject({ size: 20 * MEBIBYTE, sha256: digest })
        // Reading holds the bytes against the digest.
        expect((await named('big')?.bytes())?.length).toBe(20 * MEBIBYTE)
        expect(named('empty')?.metadata).toEqual({ note: 'x'.repeat(3000) })
        expect(granted.map(({ op }) => op)).toEqual(['put', 'put', 'create', 'parts', 'parts', 'complete'])
        expect(granted.every((event) => event.taskId === taskId && event.refused === undefined)).toBe(true)
        expect(JSON.stringify(granted)).not.toMatch(/signature|authorization/i)
        const { Uploads = [] } = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
        expect(Uploads).toEqual([])
      },
    )

    it.for(choose(PROGRAMS, first))(
      'goes on with its parts after its sandbox was paused, with fresh signatures, by %s',
      { timeout: 60_000 },
      async ([name, program]) => {
        const stale = new Set<string | undefined>()
        let isPaused = false
        await using proxy = await startFaultProxy(server().url, ({ method, url = '', headers }) => {
          if (method !== 'PUT' || !url.includes('partNumber=2')) return undefined
          // Whatever was signed before the pause is too old after it.
          if (isPaused)
            return stale.has(headers.authorization) ? s3Fault(403, 'RequestTimeTooSkewed') : undefined
          stale.add(headers.authorization)
          return { kind: 'hang' }
        })
        await using conductor = stack.conductor({
          s3: { ...s3, endpoint: proxy.url },
          access: 'broker',
          broker: { maxPutBytes: MEBIBYTE },
        })
        const taskId = `paused-${name}`
        const worker = await conductor.spawnWorker({ taskId })
        const granted: (readonly number[] | undefined)[] = []
        worker.on('grant', ({ parts }) => granted.push(parts))
        const running = worker.run(
          `truncate -s ${20 * MEBIBYTE} big && exec env WORKER_RESULTS_STALL_SECONDS=1 ${program} --quiet --require s3 big`,
        )
        const uploads = `/workspace/.results/${taskId}/.upload`
        await stack.inSandbox(
          worker.sandboxId,
          `until grep -Eqs '"done":\\[1\\]' ${uploads}/*; do sleep 0.05; done`,
        )
        await stack.pauseSandbox(worker.sandboxId)
        isPaused = true
        const before = proxy.requests.length
        // Its conductor finds it paused, and wakes it.
        expect(await running).toMatchObject({ exitCode: 0, stderr: '' })
        // The one before the pause was of no use, since the proxy refused it.
        expect(granted.filter((parts) => parts?.includes(2)).length).toBeGreaterThan(1)
        expect(proxy.requests.slice(before).filter((line) => line.includes('partNumber=1'))).toEqual([])
        const receipt = await worker.terminate()
        expect(receipt.results).toMatchObject([{ tiers: ['s3'], verified: true }])
        // Reading holds the bytes against the digest.
        const [result] = await conductor.results(taskId).list()
        expect((await result?.bytes())?.length).toBe(20 * MEBIBYTE)
      },
    )

    it('is answered also by who only finishes it, after its conductor and it have ended', async () => {
      const taskId = 'recovered'
      const senders: string[] = []
      await using proxy = await startFaultProxy(server().url, ({ method, url = '', headers }) => {
        if (method === 'PUT' && /\/recovered\/[\d-]+-x(\?|$)/.test(url))
          senders.push(`${headers['user-agent']}`)
        return undefined
      })
      const options = { id: taskId, s3: { ...s3, endpoint: proxy.url }, access: 'broker' } as const
      const first = stack.conductor(options)
      const left = await first.spawnWorker({
        taskId,
        command:
          'until [ -e go ]; do sleep 0.05; done; echo x | WORKER_RESULTS_DEADLINE_SECONDS=1 persist-result -q --name x -',
      })
      await left.detach()
      await first.close()
      const exit = `/workspace/.results/.worker/${taskId}/runs/1/exit.json`
      await stack.inSandbox(left.sandboxId, `touch /workspace/go; until [ -e ${exit} ]; do sleep 0.05; done`)
      await using second = stack.conductor(options)
      const { receipts } = await second.recover()
      // Sent from the sandbox, by what runs there still or to drain it, and not carried by the conductor.
      expect(senders.length).toBeGreaterThan(0)
      expect(senders.join()).not.toContain('aws-sdk')
      expect(receipts).toMatchObject([{ outcome: 'succeeded', results: [{ tiers: ['s3'], verified: true }] }])
    })

    it('leaves no upload behind that it did not end, but to who goes on with it', async () => {
      const first = stack.conductor({ s3, access: 'broker' })
      const record = recordOf('unfinished', 'big', 'x')
      const request = JSON.stringify({ v: 1, id: 'mine', op: 'create', record })
      const left = await first.spawnWorker({
        taskId: 'unfinished',
        files: { '/workspace/request': request },
      })
      const folder = '/workspace/.results/.worker/unfinished/broker'
      const { stdout } = await left.run(
        `cp request ${folder}/.x && mv ${folder}/.x ${folder}/mine.request && until grep -q '^end ' ${folder}/mine.answer; do sleep 0.01; done 2>/dev/null; cat ${folder}/mine.answer`,
      )
      expect(stdout).toMatch(/^stu-broker 1 mine\nupload [^ ]+\nend mine\n$/)
      const open = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
      expect(open.Uploads).toHaveLength(1)
      await left.detach()
      await first.close()
      expect(
        (await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))).Uploads,
      ).toHaveLength(1)
      await using second = stack.conductor({ s3, access: 'broker' })
      await (await second.attach('unfinished')).terminate()
      const { Uploads = [] } = await at.client.send(new ListMultipartUploadsCommand({ Bucket: at.bucket }))
      expect(Uploads).toEqual([])
    })

    it.for(PROGRAMS)(
      'gets a session that is all of a role that it may have, used by %s',
      async ([name, program], test) => {
        const { roleArn } = server()
        if (roleArn === undefined) return test.skip('this server has no STS')
        await using conductor = stack.conductor({ s3, access: 'session', session: { roleArn } })
        const worker = await conductor.spawnWorker({ taskId: `by-session-${name}` })
        const { exitCode, stderr, stdout } = await worker.run(
          `truncate -s 65M big && echo hi > small && p='${program} -q --require s3' && key=$($p small) && $p big &&
       WORKER_RESULTS_GRANT_FILE=$PWD/.results/.worker/by-session-${name}/grant.json WORKER_RESULTS_LOCAL_DIR=/tmp/none $p --retrieve "$key" && env`,
        )
        expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
        expect(stdout).not.toMatch(/AWS_(ACCESS|SECRET|SESSION)/)
        expect(stdout).toMatch(/^hi$/m)
        expect((await worker.terminate()).results.map(({ tiers }) => tiers)).toEqual([['s3'], ['s3']])
      },
    )

    it('is served with whatever the store can do, by the same setting, and confined to it if so wished', async () => {
      await using conductor = stack.conductor({ s3, egress: ['pypi.org'] })
      const worker = await conductor.spawnWorker({ taskId: 'presigned' })
      const grant = await worker.run('cat /workspace/.results/.worker/presigned/grant.json')
      expect(JSON.parse(grant.stdout)).toMatchObject({ s3: { policy: { max_bytes: 5 * 1024 ** 3 } } })
      expect(JSON.parse(grant.stdout)).not.toHaveProperty('s3.broker')
      const { E2B_API_KEY: apiKey = '' } = stack.e2b.env
      const connection = { apiKey, apiUrl: stack.e2b.url }
      const info = await Sandbox.getInfo(worker.sandboxId, connection)
      expect(info.network).toMatchObject({ allowOut: ['127.0.0.1', 'pypi.org'], denyOut: ['0.0.0.0/0'] })
      await worker.terminate()
    })
  },
  choose(s3Servers(), last),
)
