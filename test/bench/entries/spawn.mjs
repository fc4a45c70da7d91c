import { Sandbox } from 'e2b'
import { startCountingProxy } from '../support/counting-proxy.mjs'
import { compiled } from '../support/dist.mjs'

const { Conductor } = await import(compiled('index.js'))
const { startLocalStack } = await import(compiled('local/stack.js'))

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'requests from spawn to terminate of a worker that does nothing, beyond the E2B SDK’s own create and kill',
  run: async () => {
    const stack = await startLocalStack()
    try {
      const e2b = await startCountingProxy(stack.e2b.url)
      const s3 = await startCountingProxy(stack.s3.url)
      try {
        return await measure(stack.env, e2b, s3)
      } finally {
        await e2b.close()
        await s3.close()
      }
    } finally {
      await stack.close()
    }
  },
}

/**
 * @param {Readonly<Record<string, string>>} stackEnv
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} e2b
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} s3
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure(stackEnv, e2b, s3) {
  const env = {
    ...stackEnv,
    E2B_API_URL: e2b.url,
    E2B_SANDBOX_URL: e2b.url,
    E2B_VOLUME_API_URL: e2b.url,
    AWS_ENDPOINT_URL_S3: s3.url,
  }
  const bare = await Sandbox.create({
    apiKey: stackEnv.E2B_API_KEY ?? '',
    apiUrl: e2b.url,
    sandboxUrl: e2b.url,
  })
  await bare.kill()
  const own = [...e2b.take(), ...s3.take()]

  const conductor = new Conductor({ env })
  try {
    const idle = await conductor.spawnWorker()
    await idle.terminate()
    const idleRequests = [...e2b.take(), ...s3.take()]

    const worker = await conductor.spawnWorker({ command: 'true' })
    await worker.wait()
    await worker.terminate()
    const requests = [...e2b.take(), ...s3.take()]
    return [
      {
        name: ' without a command',
        value: idleRequests.length - own.length,
        bound: 6,
        unit: 'requests',
        detail: describe(idleRequests),
      },
      {
        name: ' with the command true',
        value: requests.length - own.length,
        bound: 6,
        unit: 'requests',
        detail: describe(requests),
      },
    ]
  } finally {
    await conductor.close()
  }
}

/**
 * The requests in order, without what differs from run to run.
 *
 * @param {readonly string[]} requests
 */
function describe(requests) {
  return requests.map((line) => line.replace(/\/(sandboxes|\.tasks)\/[^/]+$/, '/$1/…')).join(', ')
}
