import type { Worker } from '../../../src/conductor/worker/worker.js'
import { Conductor } from '../../../src/index.js'
import type { MatrixMessage, MatrixOrder } from '../matrix/messages.js'
import type { Steps } from '../matrix/step-hook.js'

// A conductor that is killed at one of its steps: it does one thing, and counting begins where that does.
const tell = (message: MatrixMessage): void => void process.send?.(message)
const order = JSON.parse(process.env.LAB_ORDER ?? '') as MatrixOrder
const conductor = new Conductor(JSON.parse(process.env.LAB_CONDUCTOR ?? ''))

/** Set by the hook, where there is one. */
function arm(): void {
  const { labSteps } = globalThis as { labSteps?: Steps }
  if (labSteps !== undefined) labSteps.armed = true
}

async function spawnAll(): Promise<Worker[]> {
  return Promise.all(
    order.tasks.map(async ({ taskId, spawn }) => {
      const { retriesLost: lost = 0, ...rest } = spawn
      const worker = await conductor.spawnWorker({ taskId, ...rest, retries: { lost } })
      tell({ said: 'sandbox', taskId, sandboxId: worker.sandboxId })
      return worker
    }),
  )
}

async function main(): Promise<void> {
  if (order.do === 'recover') {
    arm()
    const { workers, failures } = await conductor.recover()
    for (const { error } of failures) throw error
    for (const worker of workers) {
      worker.on('stdout', (text) => tell({ said: 'output', taskId: worker.taskId, text }))
    }
    tell({ said: 'recovered' })
    for (const worker of workers) {
      await worker.wait()
      await worker.terminate()
    }
  } else if (order.do === 'retry') {
    process.once('message', () => {
      arm()
      tell({ said: 'armed' })
    })
    for (const worker of await spawnAll()) {
      worker.on('stdout', (text) => tell({ said: 'output', taskId: worker.taskId, text }))
      worker.on('state', (state) => {
        if (state !== 'running') return
        tell({ said: 'sandbox', taskId: worker.taskId, sandboxId: worker.sandboxId })
        tell({ said: 'recovered' })
      })
      await worker.wait()
      await worker.terminate()
    }
  } else {
    const workers = await spawnAll()
    if (order.do === 'leave') {
      await workers[0]?.wait()
      tell({ said: 'left' })
      return await new Promise(() => setInterval(() => {}, 60_000))
    }
    for (const worker of workers) await worker.wait()
    arm()
    for (const worker of workers) await worker.terminate()
  }
  await conductor.close()
  process.disconnect()
}

process.once('disconnect', () => process.exit())
void main()
