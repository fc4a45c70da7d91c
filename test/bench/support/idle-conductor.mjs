// A conductor in a process of its own: says how much memory it has before and after it spawned workers that do nothing.
import { compiled } from './dist.mjs'

const { Conductor } = await import(compiled('index.js'))
const [first = 0, count = 0] = process.argv.slice(2).map(Number)
const conductor = new Conductor({ maxWorkers: first + count })

// The first ones load, compile and reserve what all of them share.
await spawn('first', first)
const before = await settledBytes()
await spawn('idle', count)
process.send?.({ beforeBytes: before, afterBytes: await settledBytes() })

/** @param {string} name @param {number} workers */
async function spawn(name, workers) {
  for (let i = 0; i < workers; i += 1) {
    await conductor.spawnWorker({ taskId: `${name}-${i}`, command: 'sleep 600' })
  }
}

/** Resident memory once garbage is collected, which needs `--expose-gc`. */
async function settledBytes() {
  for (let i = 0; i < 5; i += 1) {
    globalThis.gc?.()
    await new Promise((done) => setTimeout(done, 200))
  }
  return process.memoryUsage().rss
}
