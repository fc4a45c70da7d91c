import { startCountingProxy } from '../support/counting-proxy.mjs'
import { compiled } from '../support/dist.mjs'

const { Conductor } = await import(compiled('index.js'))
const { startLocalStack } = await import(compiled('local/stack.js'))

const ROUND_TRIPS = 50
/** Asks one after the other, from within the sandbox, and prints how long each took. */
const ASKING = `
const fs = require('node:fs')
const folder = '/workspace/.results/.worker/bench/broker'
const times = []
;(async () => {
  for (let i = 0; i < ${ROUND_TRIPS}; i++) {
    const id = 'bench-' + i
    const started = performance.now()
    fs.writeFileSync(folder + '/.x', JSON.stringify({ v: 1, id, op: 'get', key: 'bench/20260114-120000-x' }))
    fs.renameSync(folder + '/.x', folder + '/' + id + '.request')
    for (;;) {
      await new Promise((done) => setTimeout(done, 1))
      try {
        if (fs.readFileSync(folder + '/' + id + '.answer', 'utf8').endsWith('\\nend ' + id + '\\n')) break
      } catch {}
    }
    times.push(performance.now() - started)
    fs.unlinkSync(folder + '/' + id + '.request')
    fs.unlinkSync(folder + '/' + id + '.answer')
  }
  console.log(JSON.stringify(times))
})()`

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'requests that a grant adds to a spawn, and that a worker’s question to its conductor takes, with its time',
  run: async () => {
    const stack = await startLocalStack()
    try {
      const e2b = await startCountingProxy(stack.e2b.url)
      const s3 = await startCountingProxy(stack.s3.url)
      try {
        const env = {
          ...stack.env,
          E2B_API_URL: e2b.url,
          E2B_SANDBOX_URL: e2b.url,
          E2B_VOLUME_API_URL: e2b.url,
          AWS_ENDPOINT_URL_S3: s3.url,
        }
        const spawned = await countSpawns(env, e2b, s3)
        const counted = await askQuestions(env, e2b)
        // Without the proxy, which has a time of its own.
        const { times } = await askQuestions({ ...stack.env })
        return [...spawned, ...describe(counted, times)]
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
 * @param {Record<string, string>} env
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} e2b
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} s3
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function countSpawns(env, e2b, s3) {
  const conductor = new Conductor({ env })
  try {
    /** @type {Record<string, string[]>} */
    const seen = {}
    // The first round asks the store what it can do, which is remembered.
    for (let round = 0; round < 2; round += 1) {
      for (const access of /** @type {const} */ (['env', 'presigned', 'broker'])) {
        const worker = await conductor.spawnWorker({ access, command: 'true' })
        seen[access] = [...e2b.take(), ...s3.take()]
        await worker.terminate()
        e2b.take()
        s3.take()
      }
    }
    const { env: base = [], presigned = [], broker = [] } = seen
    return [
      {
        name: ' presigned, added to a spawn',
        value: presigned.length - base.length,
        bound: 0,
        unit: 'requests',
        detail: `${presigned.length} rather than ${base.length}`,
      },
      {
        name: ' broker, added to a spawn',
        value: broker.length - base.length,
        bound: 1,
        unit: 'requests',
        detail: `the watch on its folder: ${broker.length} rather than ${base.length}`,
      },
    ]
  } finally {
    await conductor.close()
  }
}

/**
 * @param {Record<string, string>} env
 * @param {Awaited<ReturnType<typeof startCountingProxy>>} [e2b]
 */
async function askQuestions(env, e2b) {
  const conductor = new Conductor({ env, access: 'broker' })
  try {
    const worker = await conductor.spawnWorker({ taskId: 'bench', files: { '/workspace/ask.cjs': ASKING } })
    let first = true
    let requests = 0
    worker.on('grant', () => {
      // What came before the first answer was the start of the command.
      const seen = e2b?.take().filter((line) => line.includes('/files')).length ?? 0
      if (!first) requests += seen
      first = false
    })
    const { stdout, stderr, exitCode } = await worker.run('node ask.cjs')
    if (exitCode !== 0) throw new Error(stderr)
    await worker.terminate({ force: true })
    return { requests, times: /** @type {number[]} */ (JSON.parse(stdout)).sort((a, b) => a - b) }
  } finally {
    await conductor.close()
  }
}

/**
 * @param {{ requests: number }} counted
 * @param {number[]} times In order.
 * @returns {import('../support/entry.mjs').Measure[]}
 */
function describe({ requests }, times) {
  return [
    {
      name: ' calls of the sandbox’s API for a question',
      value: requests / (ROUND_TRIPS - 1),
      bound: 2,
      unit: 'requests',
      detail: `${requests} for ${ROUND_TRIPS - 1}`,
    },
    {
      name: ' time of a question',
      value: times[times.length >> 1] ?? Number.NaN,
      bound: 25,
      unit: 'ms',
      detail: `median of ${ROUND_TRIPS}, ${times[0]?.toFixed(1)} to ${times.at(-1)?.toFixed(1)} ms`,
    },
  ]
}
