// Fails, and leaves what it had and why it stopped: a failed worker's work is not lost.
//
//   node error-recovery.js [RECORDS.json]
//
// CommonJS, as a script in a worker is; inside a package with "type": "module", name it .cjs.
const { readFileSync } = require('node:fs')
const { setTimeout: sleep } = require('node:timers/promises')
const { persistResult } = require('persist-result.js')

// The third one cannot be processed.
const SAMPLE = [{ amount: 12.5 }, { amount: 30 }, { amount: 'many' }, { amount: 7 }]

// A worker that takes too long gets SIGTERM, and some seconds later SIGKILL. In between there is time to save things.
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort(new Error('stopped by SIGTERM')))

async function main() {
  const [path] = process.argv.slice(2)
  const records = path === undefined ? SAMPLE : JSON.parse(readFileSync(path, 'utf8'))
  const totals = { done: 0, sum: 0 }
  try {
    await performTask(records, totals)
    await persistResult(JSON.stringify(totals), { name: 'success.json' })
  } catch (error) {
    // The reason for an abort says more than that there was one.
    const cause = error.name === 'AbortError' ? stop.signal.reason : error
    await saveFailure(cause, totals, records.length)
    // Thrown on: the conductor must see that the worker failed, not only that it stored something.
    throw cause
  }
}

/** Stands for the work: takes a while and can fail half-way. */
async function performTask(records, totals) {
  for (const { amount, ms = 1 } of records) {
    // A signal is only heard while the program waits for something.
    await sleep(ms, undefined, { signal: stop.signal })
    if (typeof amount !== 'number') throw new Error(`record ${totals.done + 1}: "${amount}" is not a number`)
    totals.sum += amount
    totals.done += 1
    console.log(`${totals.done} of ${records.length}`)
  }
}

/** Stores what is done and what went wrong. Never throws: what comes out in the end is the error that mattered. */
async function saveFailure({ message, stack }, totals, of) {
  const details = { error: message, stack, timestamp: new Date().toISOString() }
  const stored = await Promise.allSettled([
    persistResult(JSON.stringify(totals), { name: 'partial.json', metadata: { done: totals.done, of } }),
    persistResult(JSON.stringify(details), { name: 'error.json', metadata: { status: 'failed' } }),
  ])
  for (const { reason } of stored) if (reason !== undefined) console.error(reason)
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
