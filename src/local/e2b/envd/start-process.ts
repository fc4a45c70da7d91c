import { HOMES } from '../jail/jail.js'
import { RequestError } from '../request-error.js'
import { type ProcessConfig, RunningProcess } from '../sandbox/running-process.js'
import type { Sandbox } from '../sandbox/sandbox.js'
import type { Sandboxes } from '../sandbox/sandboxes.js'
import { expandPath } from './access.js'
import type { RpcCall } from './rpc.js'

/** What to start, as the protocol says it. */
export interface StartMessage {
  readonly process: { cmd: string; args: string[]; envs: Record<string, string>; cwd?: string | undefined }
  readonly tag?: string | undefined
  readonly stdin: boolean
}

/** Starts a command with the environment and folder it would have in E2B. */
export async function startProcess(
  sandboxes: Sandboxes,
  { sandbox, user, message }: RpcCall<StartMessage>,
): Promise<RunningProcess> {
  const { cmd, args, envs, cwd } = message.process
  refuseNullBytes([cmd, ...args, ...Object.entries(envs).flat()])
  const folder = await existingFolder(sandbox, expandPath(cwd ?? '', user))
  // Only now: it may have been paused meanwhile, and from here on a pause waits for what is being started.
  const live = sandbox.live()
  const started = await live.start({
    file: cmd,
    args,
    // Later ones win, in this order.
    env: {
      PATH: sandboxes.path,
      HOME: HOMES[user],
      USER: user,
      LOGNAME: user,
      E2B_SANDBOX: 'true',
      E2B_SANDBOX_ID: sandbox.config.id,
      E2B_TEMPLATE_ID: sandbox.config.templateId,
      ...sandbox.config.envs,
      ...envs,
    },
    cwd: folder,
    user,
    stdin: message.stdin,
  })
  const config: ProcessConfig = { cmd, args, envs, ...(cwd === undefined ? {} : { cwd }) }
  const process = new RunningProcess(started, config, message.tag)
  live.processes.add(process)
  return process
}

async function existingFolder(sandbox: Sandbox, path: string): Promise<string> {
  const real = await sandbox
    .live()
    .jail.root.at(path, {}, async (place) => {
      return place.stat?.isDirectory() === true ? place.path : undefined
    })
    .catch((error: unknown) => {
      if (error instanceof RequestError && error.code === 'not_found') return undefined
      throw error
    })
  if (real === undefined) throw new RequestError('invalid_argument', `cwd '${path}' does not exist`)
  return real
}

function refuseNullBytes(texts: readonly string[]): void {
  if (texts.some((text) => text.includes('\0'))) {
    throw new RequestError(
      'invalid_argument',
      'a command, its arguments and variables cannot contain null bytes',
    )
  }
}
