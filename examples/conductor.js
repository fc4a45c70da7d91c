// Stu's side of it: starts the four examples as workers, side by side, and reads what they stored when they are gone.
// Takes E2B and S3 from the environment, yours or that of `stu-conductor local`; README.md here says how.
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Conductor } from 'stu-conductor'

const EXAMPLES = [
  { script: 'basic-storage.sh', command: 'sh basic-storage.sh' },
  { script: 'incremental-checkpoints.js', command: 'node incremental-checkpoints.js' },
  // Exits with 1, on purpose.
  { script: 'error-recovery.js', command: 'node error-recovery.js' },
  { script: 'multi-file-results.sh', command: 'sh multi-file-results.sh' },
]

// In a worker WORKER_ID is its task, `persist-result` is on the PATH, and instead of AWS keys there is a grant that
// writes to this task's results and nothing else, for as long as the worker may live. Where a worker needs the keys
// themselves (WORKER_RESULTS_S3_BUCKET, AWS_ACCESS_KEY_ID, …): new Conductor({ access: 'env' }).
const conductor = new Conductor()
const run = randomBytes(3).toString('hex')
try {
  const receipts = await Promise.all(EXAMPLES.map(runExample))
  for (const { taskId, outcome, exitCode } of receipts) {
    console.log(`\n${taskId}: ${outcome}, exit ${exitCode}`)
    // By now the sandboxes are gone. Any other process with the same settings reads the same.
    for await (const result of conductor.results(taskId)) {
      console.log(`  ${result.key}  ${result.size} bytes  ${JSON.stringify(result.metadata)}`)
    }
  }
  const failure = await conductor.results(`${run}-error-recovery`).latest('error.json')
  console.log(`\nWhy error-recovery failed: ${(await failure?.json())?.error}`)
} finally {
  await conductor.close()
}

/** Runs one example in a sandbox of its own; resolves with its receipt. */
async function runExample({ script, command }) {
  const taskId = `${run}-${script.replace(/\.\w+$/, '')}`
  const worker = await conductor.spawnWorker({
    taskId,
    files: { [`/workspace/${script}`]: await readFile(new URL(script, import.meta.url)) },
    command,
    timeoutMs: 300_000,
  })
  worker.on('result', ({ key }) => console.log(`stored: ${key}`))
  await worker.wait()
  // Makes sure of every result before the sandbox goes: the receipt says where each one is.
  return await worker.terminate()
}
