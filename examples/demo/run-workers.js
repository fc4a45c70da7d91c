import { Conductor } from 'stu-conductor'

/** A stopped command gets this long to end by itself, in milliseconds. */
const GRACE_MS = 2_000
/** How much of its stderr is shown of a worker that ended other than it should, in characters. */
const MAX_LAST_WORDS = 2_000

/**
 * @typedef {object} RunOptions
 * @property {string} runId Names this run's tasks and sandboxes.
 * @property {Readonly<Record<string, string | undefined>>} env Where E2B and S3 are.
 * @property {readonly import('./workers.js').DemoWorker[]} workers
 * @property {import('./progress.js').Progress} progress
 * @property {() => Promise<void>} onAllRunning Called once, when all sandboxes are up and none is terminated.
 * @property {AbortSignal} signal
 */

/**
 * Runs all workers side by side and terminates them; resolves with their receipts. Whatever happens, no sandbox is left.
 *
 * @param {RunOptions} options
 * @returns {Promise<readonly import('stu-conductor').Receipt[]>}
 */
export async function runWorkers({ runId, env, workers, progress, onAllRunning, signal }) {
  const conductor = new Conductor({ id: runId, env })
  try {
    const running = await Promise.all(
      workers.map(async ({ name, job, expected }) => {
        progress.update(name, { state: 'starting' })
        const worker = await conductor.spawnWorker({
          taskId: `${runId}-${name}`,
          metadata: { demo: runId },
          graceMs: GRACE_MS,
          signal,
          ...job,
        })
        report(name, worker, expected.exitCode, progress)
        return worker
      }),
    )
    await onAllRunning()
    await Promise.all(running.map((worker) => worker.wait({ signal })))
    return await Promise.all(running.map((worker) => worker.terminate({ signal })))
  } finally {
    await conductor.close()
  }
}

/**
 * @param {string} name
 * @param {import('stu-conductor').Worker} worker
 * @param {number} expectedExitCode
 * @param {import('./progress.js').Progress} progress
 */
function report(name, worker, expectedExitCode, progress) {
  let lastWords = ''
  progress.update(name, { state: worker.state })
  worker.on('result', (result) => progress.result(name, result.name, result.size))
  worker.on('stderr', (text) => {
    lastWords = (lastWords + text).slice(-MAX_LAST_WORDS)
  })
  worker.on('exit', ({ outcome, exitCode }) => {
    progress.update(name, {
      state: exitCode === 0 ? outcome : `${outcome} (exit ${exitCode ?? 'unknown'})`,
    })
    if (exitCode !== expectedExitCode) progress.note(`${name} said at last:\n${lastWords.trimEnd()}`)
  })
  worker.on('problem', ({ store, error }) => progress.note(`${name}: ${store}: ${error.message}`))
  worker.on('lost', (error) => progress.update(name, { state: `lost: ${error.message}` }))
}
