// A conductor in a process of its own: says how much memory it has before and after it spawned workers that do nothing.
import { compiled } from './dist.mjs'

const { Conductor } = await import(compiled('index.js'))
const [count = '0'] = process.argv.slice(2)
const conductor = new Conductor({ maxWorkers: Number(count) + 1 })

// The first one loads what all of them share.
await conductor.spawnWorker({ taskId: 'first', command: 'sleep 600' })
const before = await settledBytes()
for (let i = 0; i < Number(count); i += 1) {
  await conductor.spawnWorker({ taskId: `idle-${i}`, command: 'sleep 600' })
}
process.send?.({ beforeBytes: before, afterBytes: await settledBytes() })

/** Resident memory once garbage is collected, which needs `--expose-gc`. */
async function settledBytes() {
  for (let i = 0; i < 5; i += 1) {
    globalThis.gc?.()
    await new Promise((done) => setTimeout(done, 200))
  }
  return process.memoryUsage().rss
}
