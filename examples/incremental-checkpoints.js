// Saves its progress as it goes, and goes on from there when it is started again.
//
// A checkpoint is a result like any other: it outlives the worker, and the conductor sees it while the work still runs.
// CommonJS, as a script in a worker is; inside a package with "type": "module", name it .cjs.
const { listResults, persistResult, retrieveResult } = require('persist-result.js')

const CHUNK = 1000
const CHECKPOINT = /^checkpoint-\d+\.json$/

async function main() {
  const data = loadData()
  let state = await lastCheckpoint()
  if (state.done > 0) console.log(`going on after ${state.done} of ${data.length}`)

  while (state.done < data.length) {
    state = processChunk(state, data.slice(state.done, state.done + CHUNK))
    // All that is needed to go on, not only what is new: one checkpoint is enough then.
    await persistResult(JSON.stringify(state), {
      name: `checkpoint-${state.done}.json`,
      metadata: { done: state.done, progress: state.done / data.length },
    })
    console.log(`${state.done} of ${data.length}`)
  }

  const { done, sum, max } = state
  await persistResult(`${JSON.stringify({ count: done, mean: sum / done, max }, null, 2)}\n`, {
    name: 'summary.json',
    metadata: { status: 'complete' },
  })
}

/** The furthest state that this task has stored; the beginning when there is none. */
async function lastCheckpoint() {
  // From the worker's own disk, or from the volume that is its spool: that one a new sandbox finds as the last one left it.
  const checkpoints = (await listResults()).filter(({ name }) => CHECKPOINT.test(name))
  // By what it says of itself: names sort as text, so checkpoint-10000 comes before checkpoint-2000.
  checkpoints.sort((a, b) => a.metadata.done - b.metadata.done)
  const newest = checkpoints.at(-1)
  return newest === undefined ? { done: 0, sum: 0, max: 0 } : JSON.parse(await retrieveResult(newest.key))
}

/** Stands for the work. */
function processChunk({ done, sum, max }, chunk) {
  for (const value of chunk) {
    sum += value
    max = Math.max(max, value)
  }
  return { done: done + chunk.length, sum, max }
}

/** Stands for the input: 4,500 numbers. */
function loadData() {
  return Array.from({ length: 4500 }, (_, i) => (i * 7919) % 1009)
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
