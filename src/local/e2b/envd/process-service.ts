import { z } from 'zod'
import type { Handler } from '../http/router.js'
import { RequestError } from '../request-error.js'
import type { Follower, RunningProcess } from '../sandbox/running-process.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import type { EventStream } from './connect-protocol.js'
import { type StreamCall, serverStream, unary } from './rpc.js'
import { startProcess } from './start-process.js'

const selector = z.object({ pid: z.int().positive().optional(), tag: z.string().optional() })
const selected = z.object({ process: selector })
const startRequest = z.object({
  process: z.object({
    cmd: z.string().min(1),
    args: z.array(z.string()).default([]),
    envs: z.record(z.string(), z.string()).default({}),
    cwd: z.string().optional(),
  }),
  pty: z.unknown().optional(),
  tag: z.string().optional(),
  stdin: z.boolean().default(true),
})
const inputRequest = selected.extend({
  input: z.object({ stdin: z.base64().optional(), pty: z.base64().optional() }),
})
const signalRequest = selected.extend({ signal: z.enum(['SIGNAL_SIGTERM', 'SIGNAL_SIGKILL']) })

const KEEPALIVE = { event: { keepalive: {} } }
const NO_PTY = 'terminals (PTY) are not supported by the local stand-in'

/** envd's `process.Process` service. */
export function processService(sandboxes: Sandboxes): {
  unary: Record<string, Handler>
  streams: Record<string, Handler>
} {
  return {
    streams: {
      'POST /process.Process/Start': serverStream(sandboxes, startRequest, async (call) => {
        if (call.message.pty != null) throw new RequestError('unimplemented', NO_PTY)
        const started = await startProcess(sandboxes, call)
        // The time a client allows is the command's, whether or not the client is still there.
        const timer =
          call.deadlineMs === undefined
            ? undefined
            : setTimeout(() => void started.signal('SIGKILL'), call.deadlineMs)
        void started.ended.then(() => clearTimeout(timer))
        return follow(started, call)
      }),
      'POST /process.Process/Connect': serverStream(sandboxes, selected, async (call) =>
        follow(call.sandbox.live().processes.find(call.message.process), call),
      ),
    },
    unary: {
      'POST /process.Process/List': unary(sandboxes, z.unknown(), async ({ sandbox }) => ({
        processes: sandbox
          .live()
          .processes.running()
          .map(({ pid, tag, config }) => ({ pid, config, ...(tag === undefined ? {} : { tag }) })),
      })),
      'POST /process.Process/SendInput': unary(sandboxes, inputRequest, async ({ sandbox, message }) => {
        const process = sandbox.live().processes.findRunning(message.process)
        if (message.input.stdin === undefined) throw new RequestError('unimplemented', NO_PTY)
        await process.writeStdin(Buffer.from(message.input.stdin, 'base64'))
        return {}
      }),
      'POST /process.Process/CloseStdin': unary(sandboxes, selected, async ({ sandbox, message }) => {
        await sandbox.live().processes.findRunning(message.process).closeStdin()
        return {}
      }),
      'POST /process.Process/SendSignal': unary(sandboxes, signalRequest, async ({ sandbox, message }) => {
        const process = sandbox.live().processes.findRunning(message.process)
        const sent = await process.signal(message.signal === 'SIGNAL_SIGKILL' ? 'SIGKILL' : 'SIGTERM')
        if (!sent) throw new RequestError('not_found', `process ${process.pid} has ended`)
        return {}
      }),
      'POST /process.Process/Update': unary(sandboxes, selected, async ({ sandbox, message }) => {
        sandbox.live().processes.findRunning(message.process)
        throw new RequestError('unimplemented', NO_PTY)
      }),
    },
  }
}

/** Passes a process's output on until it ends, the client leaves, or the client's time is up. */
async function follow(process: RunningProcess, call: StreamCall<unknown>): Promise<RequestError | undefined> {
  const stream = call.open(KEEPALIVE)
  void stream.send({ event: { start: { pid: process.pid } } })
  return new Promise((resolve) => {
    let stop = () => {}
    const finish = (error?: RequestError) => {
      clearTimeout(timer)
      stop()
      resolve(error)
    }
    const { deadlineMs } = call
    const late = () => finish(new RequestError('deadline_exceeded', 'the time for the command is up'))
    const timer = deadlineMs === undefined ? undefined : setTimeout(late, deadlineMs)
    stop = process.follow(toFollower(stream, finish))
    if (stream.closed.aborted) finish()
    stream.closed.addEventListener('abort', () => finish(), { once: true })
  })
}

function toFollower(stream: EventStream, onEnd: () => void): Follower {
  return {
    onOutput: (name, chunk) => stream.send({ event: { data: { [name]: chunk.toString('base64') } } }),
    onEnd: (end) => {
      void stream.send({ event: { end } })
      onEnd()
    },
  }
}
