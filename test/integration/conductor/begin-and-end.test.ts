import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ConductorOptions } from '../../../src/conductor/options.js'
import type { Worker } from '../../../src/conductor/worker/worker.js'
import { S3Manifests } from '../../../src/stores/s3/s3-manifests.js'
import { startTestStack, type TestStack } from '../../support/stack.js'

/** Nothing that is stored from then on reaches S3, and all of it is acknowledged. */
const OUT_OF_REACH = `mv /workspace/.results/.worker/*/grant.json /tmp/grant
  export AWS_ENDPOINT_URL_S3=http://127.0.0.1:1 WORKER_RESULTS_ENDPOINT=http://127.0.0.1:1 WORKER_RESULTS_DEADLINE_SECONDS=1`

describe('a worker that is being started, or ended', () => {
  let stack: TestStack
  let between: Between
  beforeAll(async () => {
    stack = await startTestStack()
    between = await startBetween(stack.e2b.url)
  })
  afterAll(async () => {
    await between?.[Symbol.asyncDispose]()
    await stack?.[Symbol.asyncDispose]()
  })
  const options = (): ConductorOptions => {
    const to = (text: string): string => text.replace(new URL(stack.e2b.url).origin, between.url)
    return { env: Object.fromEntries(Object.entries(stack.e2b.env).map(([name, text]) => [name, to(text)])) }
  }

  it('tells all that it prints, from the first byte, to whoever listens once it has it', async () => {
    await using conductor = stack.conductor(options())
    between.hold()
    const spawned = conductor.spawnWorker({
      taskId: 'early',
      access: 'broker',
      command: 'echo first; exit 3',
    })
    await between.asked
    // It has ended before anybody has it.
    const sandboxId = await stack.sandboxOf('early')
    await stack.inSandbox(
      sandboxId,
      'until [ -e /workspace/.results/.worker/early/runs/1/exit.json ]; do sleep 0.02; done',
    )
    between.letGo()
    const worker = await spawned
    let heard = ''
    worker.on('stdout', (text) => {
      heard += text
    })
    expect(await worker.wait()).toMatchObject({ exitCode: 3 })
    expect(heard).toBe('first\n')
  })

  it('keeps what it has acknowledged when it is given up, and closing waits for that', async () => {
    const conductor = stack.conductor(options())
    between.hold()
    const spawned = conductor.spawnWorker({
      taskId: 'given-up',
      access: 'broker',
      command: 'echo kept | persist-result --quiet --name kept - && touch /tmp/said; sleep 1000',
      // Nobody answers it yet, so that it lies in its sandbox only.
      env: { WORKER_RESULTS_DEADLINE_SECONDS: '1' },
    })
    const given = expect(spawned).rejects.toMatchObject({ code: 'CLOSED' })
    await between.asked
    const sandboxId = await stack.sandboxOf('given-up')
    await stack.inSandbox(sandboxId, 'until [ -e /tmp/said ]; do sleep 0.02; done')
    const closed = conductor.close()
    between.letGo()
    await closed
    await given
    await using reader = stack.conductor()
    expect(await (await reader.results('given-up').latest('kept'))?.text()).toBe('kept\n')
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('has its command’s output and end told also where E2B was out of reach since it began', async () => {
    await using conductor = stack.conductor(options())
    const worker = await conductor.spawnWorker({ taskId: 'unseen' })
    let told = ''
    worker.on('stdout', (text) => {
      told += text
    })
    between.loseStart()
    await expect(worker.run('echo unheard; exit 5')).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    const exit = '/workspace/.results/.worker/unseen/runs/1/exit.json'
    await stack.inSandbox(worker.sandboxId, `until [ -e ${exit} ]; do sleep 0.02; done`)
    between.letGo()
    expect(await worker.terminate()).toMatchObject({ outcome: 'failed', exitCode: 5, signal: null })
    expect(told).toBe('unheard\n')
  })

  it('is lost, and not killed, when its sandbox vanished while E2B was out of reach', async () => {
    await using conductor = stack.conductor(options())
    const worker = await conductor.spawnWorker({ taskId: 'unseen-loss' })
    between.loseStart()
    await expect(worker.run('sleep 1000')).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    await stack.killSandbox(worker.sandboxId)
    between.letGo()
    expect(await worker.terminate()).toMatchObject({ outcome: 'lost', cause: 'sandbox_vanished' })
  })

  it('is left to others by a close that has no more time, also where somebody ends it without limit', async () => {
    const conductor = stack.conductor(options())
    const spawn = async (taskId: string): Promise<Worker> => {
      const command = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
      const worker = await conductor.spawnWorker({ taskId, command, graceMs: 600_000 })
      await new Promise((heard) => worker.once('stdout', heard))
      return worker
    }
    const [worker, other] = await Promise.all([spawn('stubborn'), spawn('stubborn-too')])
    const gaveUp = { name: 'TimeoutError' }
    // The same holds for whoever ends one worker; it is not over for that.
    await expect(other.terminate({ signal: AbortSignal.timeout(100) })).rejects.toMatchObject(gaveUp)
    expect(other.state).toBe('running')
    const ended = expect(worker.terminate()).rejects.toMatchObject({ code: 'CLOSED' })
    const closed = conductor.close({ timeoutMs: 100 })
    await expect(closed).rejects.toMatchObject({ errors: [gaveUp, gaveUp] })
    await ended
    for (const { state, sandboxId } of [worker, other]) {
      expect(state).toBe('detached')
      await stack.killSandbox(sandboxId)
    }
  })

  it('leaves no sandbox when it is given up while that is made', async () => {
    const conductor = stack.conductor(options())
    between.hold('create')
    const given = expect(conductor.spawnWorker({ taskId: 'making' })).rejects.toMatchObject({
      code: 'CLOSED',
    })
    await between.asked
    const closed = conductor.close()
    between.letGo()
    await Promise.all([closed, given])
    expect(await stack.sandboxCount()).toBe(0)
  })

  it('leaves no sandbox for long where nobody hears that it was made, nor keeps its task', async () => {
    await using conductor = stack.conductor(options())
    between.loseCreate()
    const spawn = { taskId: 'unheard-of', retries: { create: 0 } }
    await expect(conductor.spawnWorker(spawn)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    expect(await stack.sandboxCount()).toBe(1)
    between.letGo()
    await expect.poll(() => stack.sandboxCount(), { timeout: 30_000 }).toBe(0)
    await (await conductor.spawnWorker(spawn)).terminate()
  })

  it('is killed though nothing in its sandbox can be asked: what it was seen to hold is told as given up', async () => {
    await using conductor = stack.conductor(options())
    const worker = await conductor.spawnWorker({
      taskId: 'mute',
      command: `until [ -e go ]; do sleep 0.02; done; echo far | persist-result --quiet --name far - >/dev/null; ${OUT_OF_REACH}
        echo near | persist-result --quiet --name near - >/dev/null; sleep 1000`,
    })
    const heard = new Promise<string>((told) => {
      worker.on('result', ({ name, key }) => {
        if (name === 'near') told(key)
      })
    })
    await stack.inSandbox(worker.sandboxId, 'touch /workspace/go')
    const near = await heard
    between.loseSandboxes()
    await expect(worker.terminate()).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    const receipt = await worker.kill()
    const undelivered = [{ key: near, reason: expect.stringContaining('could not be read') }]
    expect(receipt).toMatchObject({ outcome: 'killed', undelivered, unaccounted: expect.any(String) })
    expect(receipt.results.map(({ key }) => key.slice(21))).toContain('far')
    between.letGo()
    expect(await stack.sandboxCount()).toBe(0)
    const manifest = await new S3Manifests(stack.at).read('mute')
    expect(manifest).toMatchObject({ complete: false, attempts: [{ undelivered }] })
  })

  it('is killed, and not lost, also when nobody hears that it was and S3 is away', async () => {
    const { bucket, region, credentials } = { ...stack.s3, bucket: stack.at.bucket }
    const s3 = { bucket, region, credentials, endpoint: 'http://127.0.0.1:1' }
    await using conductor = stack.conductor({ ...options(), s3 })
    const worker = await conductor.spawnWorker({ taskId: 'unheard', command: 'sleep 1000' })
    between.loseKill()
    await expect(worker.kill()).rejects.toMatchObject({ code: 'UNAVAILABLE' })
    expect(await stack.sandboxCount()).toBe(0)
    between.letGo()
    expect(await worker.kill()).toMatchObject({ outcome: 'killed', cause: 'stopped', sealed: false })
  })
})

/** E2B, but for two things: watching a folder begins when it is let, and the answer to a kill may be lost. */
interface Between extends AsyncDisposable {
  readonly url: string
  /** Resolves once a sandbox is asked to be watched and that waits. */
  readonly asked: Promise<void>
  /** Also the answer to the making of a sandbox may be what waits. */
  hold(what?: 'watch' | 'create'): void
  /** The next sandbox is made, and from its answer on nothing comes through until it is let. */
  loseCreate(): void
  letGo(): void
  /** The next kill is carried out, and from its answer on nothing comes through until it is let. */
  loseKill(): void
  /** From now on nothing gets through to any sandbox; what E2B itself is asked does. */
  loseSandboxes(): void
  /** The same of the next command. */
  loseStart(): void
}

async function startBetween(target: string): Promise<Between> {
  let losesKill = false
  let losesStart = false
  let losesCreate = false
  let holds: 'watch' | 'create' = 'watch'
  let isCut = false
  let losesSandboxes = false
  let held: Promise<void> | undefined
  let letGo = (): void => {}
  let ask = (): void => {}
  let asked = Promise.resolve()
  const server = createServer((incoming, answer) => {
    const isForSandbox = /^\/(process|filesystem|files)\b/.test(incoming.url ?? '')
    if (isCut || (losesSandboxes && isForSandbox)) {
      incoming.socket.destroy()
      return
    }
    void (async () => {
      if (holds === 'watch' && incoming.url?.includes('WatchDir') === true && held !== undefined) {
        ask()
        await held
      }
      const { method, headers } = incoming
      const isCreate = method === 'POST' && /\/sandboxes$/.test(incoming.url ?? '')
      const isStart = incoming.url?.includes('process.Process/Start') === true
      const onward = request(new URL(incoming.url ?? '/', target), { method, headers, agent: false })
      answer.once('close', () => onward.destroy())
      onward.once('response', (response) => {
        if (
          (incoming.method === 'DELETE' && losesKill) ||
          (isStart && losesStart) ||
          (isCreate && losesCreate)
        ) {
          isCut = true
          incoming.socket.destroy()
          return
        }
        const pass = (): void => {
          answer.writeHead(response.statusCode ?? 502, response.headers)
          answer.flushHeaders()
          pipeline(response, answer).catch(() => answer.destroy())
        }
        if (!isCreate || holds !== 'create' || held === undefined) return pass()
        ask()
        void held.then(pass)
      })
      pipeline(incoming, onward).catch(() => answer.destroy())
    })()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get asked() {
      return asked
    },
    hold: (what = 'watch') => {
      holds = what
      held = new Promise((go) => {
        letGo = go
      })
      asked = new Promise((told) => {
        ask = told
      })
    },
    loseCreate: () => {
      losesCreate = true
    },
    loseStart: () => {
      losesStart = true
    },
    loseSandboxes: () => {
      losesSandboxes = true
    },
    loseKill: () => {
      losesKill = true
    },
    letGo: () => {
      losesKill = false
      losesStart = false
      losesSandboxes = false
      losesCreate = false
      isCut = false
      held = undefined
      letGo()
    },
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
