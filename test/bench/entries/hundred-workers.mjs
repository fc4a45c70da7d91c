import { Sandbox } from 'e2b'
import { compiled } from '../support/dist.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'
import { startStack } from '../support/stack.mjs'

const { Conductor } = await import(compiled('index.js'))
const { createPresignedPost } = await import('@aws-sdk/s3-presigned-post')
const { S3Client } = await import('@aws-sdk/client-s3')

const WORKERS = 100
const ROUNDS = 2
const AT_ONCE = 8
const NODE = 'node -e 0'
const PRINT = 'echo a line; head -c 1000 /dev/zero >/tmp/result.bin'

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: `${WORKERS} workers that each print a line and leave one result : the same with bare SDK calls and curl`,
  run: async () => {
    const stack = await startStack()
    try {
      const cpu = { ours: 0, theirs: 0 }
      const times = await sideBySide(ROUNDS, {
        ours: (round) => onCpu(cpu, 'ours', round, withConductor(stack, round)),
        theirs: (round) => onCpu(cpu, 'theirs', round, withBareCalls(stack, round)),
        one: (round) => withBareCalls(stack, round, NODE),
        three: (round) => withBareCalls(stack, round, `${NODE}; ${NODE}; ${NODE}`),
      })
      const perWorker = (/** @type {number} */ ms) => `${(ms / WORKERS).toFixed(1)} ms`
      return [
        {
          name: '',
          value: times.ours.medianMs / times.theirs.medianMs,
          bound: 1.25,
          unit: 'x',
          detail: `${formatTimes(times.ours)} : ${formatTimes(times.theirs)} for each ${WORKERS / ROUNDS} of them`,
        },
        {
          name: ', with a start of Node',
          value: times.ours.medianMs / times.one.medianMs,
          unit: 'x',
          detail: `where each bare sandbox also runs node -e 0 once: ${formatTimes(times.one)}`,
        },
        {
          name: ', with three starts of Node',
          value: times.ours.medianMs / times.three.medianMs,
          unit: 'x',
          detail: `where it does so three times: ${formatTimes(times.three)}`,
        },
        {
          name: ', CPU time of the process',
          value: cpu.ours / cpu.theirs,
          unit: 'x',
          detail: `the conductor's : that of the bare calls, for each worker ${perWorker(cpu.ours)} : ${perWorker(cpu.theirs)}`,
        },
      ]
    } finally {
      await stack.close()
    }
  },
}

/** @param {import('../support/stack.mjs').BenchStack} stack @param {number} round */
async function withConductor(stack, round) {
  const conductor = new Conductor({ env: stack.env, maxWorkers: AT_ONCE })
  await Promise.all(
    numbers(round).map(async (i) => {
      let printed = ''
      const worker = await conductor.spawnWorker({ taskId: `ours-${round}-${i}` })
      worker.on('stdout', (text) => {
        printed += text
      })
      await worker.run(`${PRINT}; persist-result --quiet /tmp/result.bin >/dev/null`)
      const { results } = await worker.terminate()
      if (printed !== 'a line\n' || results.length !== 1) throw new Error(`worker ${i}: ${printed}`)
    }),
  )
  await conductor.close()
}

/**
 * Adds up what this process takes of the processors; sandboxes and servers are others.
 *
 * @param {Record<string, number>} sums
 * @param {string} name
 * @param {number} round
 * @param {Promise<void>} running
 */
async function onCpu(sums, name, round, running) {
  const before = process.cpuUsage()
  await running
  const { user, system } = process.cpuUsage(before)
  if (round >= 0) sums[name] = (sums[name] ?? 0) + (user + system) / 1000
}

/**
 * @param {import('../support/stack.mjs').BenchStack} stack
 * @param {number} round
 * @param {string} [further] Run in each sandbox as well.
 */
async function withBareCalls(stack, round, further = ':') {
  const { env, bucket } = stack
  const client = new S3Client({
    endpoint: stack.s3Url,
    region: env.AWS_REGION ?? '',
    credentials: credentials(env),
    forcePathStyle: true,
  })
  const connection = { apiKey: env.E2B_API_KEY ?? '', apiUrl: stack.e2bUrl, sandboxUrl: stack.e2bUrl }
  const left = numbers(round)
  const worker = async () => {
    for (let i = left.pop(); i !== undefined; i = left.pop()) {
      let printed = ''
      const { url, fields } = await createPresignedPost(client, {
        Bucket: bucket,
        Key: `theirs/${round}/${i}`,
      })
      const form = Object.entries(fields).map(([name, value]) => `-F '${name}=${value}'`)
      const sandbox = await Sandbox.create(connection)
      await sandbox.commands.run(
        `${PRINT}; curl -sf ${form.join(' ')} -F file=@/tmp/result.bin ${url}; ${further}`,
        {
          onStdout: (text) => {
            printed += text
          },
        },
      )
      await sandbox.kill()
      if (printed !== 'a line\n') throw new Error(`sandbox ${i}: ${printed}`)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  client.destroy()
}

/** @param {Readonly<Record<string, string>>} env */
function credentials(env) {
  return { accessKeyId: env.AWS_ACCESS_KEY_ID ?? '', secretAccessKey: env.AWS_SECRET_ACCESS_KEY ?? '' }
}

/**
 * Those of a round; to warm up, as many as live at once.
 *
 * @param {number} round
 */
function numbers(round) {
  return Array.from({ length: round < 0 ? AT_ONCE : WORKERS / ROUNDS }, (_, i) => i)
}
