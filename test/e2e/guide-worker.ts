import type { RunResult } from '../../src/conductor/command/supervised-command.js'
import { Conductor } from '../../src/conductor/conductor.js'
import type { ConductorOptions } from '../../src/conductor/options.js'
import type { LocalStack } from '../../src/local/stack.js'
import { ENV } from '../../src/protocol/environment.js'
import type { Result } from '../../src/results/result.js'

/** The task that the guide's commands name. */
export const TASK = 'worker-123'

/** A worker that runs snippets of the guide. */
export interface GuideWorker extends AsyncDisposable {
  /** Runs a script in the worker's bash, in /workspace; each of its commands must succeed. Gives all that was printed. */
  bash(script: string): Promise<RunResult>
  /** Writes a Node script in the worker's bash, so that its paths are the worker's however that is isolated, and runs it. */
  node(script: string): Promise<RunResult>
  /** Ends the worker as its conductor does, and reads what it left as any other process would, in key order. */
  finish(): Promise<readonly Result[]>
}

/** What a worker is given besides the stack's own settings. */
export interface GuideWorkerOptions {
  readonly files?: Readonly<Record<string, string>>
  /** In the stack's bucket. @default one of the worker's own, since all workers here have the same task */
  readonly prefix?: string
  readonly conductor?: ConductorOptions
}

let prefixes = 0

/** Starts the worker. Disposing ends it whatever it still holds. */
export async function startGuideWorker(
  stack: LocalStack,
  { files = {}, prefix = `prefix-${++prefixes}`, conductor: options = {} }: GuideWorkerOptions = {},
): Promise<GuideWorker> {
  const settings = { env: { ...stack.env, [ENV.s3Prefix]: prefix }, ...options }
  const conductor = new Conductor(settings)
  const worker = await conductor.spawnWorker({ taskId: TASK, files })
  const bash = async (script: string): Promise<RunResult> => {
    const ran = await worker.run(`set -e\n${script}`)
    if (ran.exitCode !== 0) throw new Error(`exit ${ran.exitCode ?? ran.signal}: ${ran.stderr}${ran.stdout}`)
    return ran
  }
  return {
    bash,
    node: (script) => bash(`cat > script.js <<'END OF SCRIPT'\n${script}\nEND OF SCRIPT\nnode script.js`),
    finish: async () => {
      await worker.terminate()
      await using reader = new Conductor(settings)
      return await reader.results(TASK).list({ strict: true })
    },
    [Symbol.asyncDispose]: async () => {
      await worker.kill()
      await conductor.close()
    },
  }
}

/**
 * The text of a script with a snippet of the guide in it. The snippets use both `require` and `await`, so in a file they
 * stand in an async function; `before` gives what they take for granted.
 */
export function nodeScript(snippet: string, { before = '', after = '' } = {}): string {
  return `${before}
async function main() {
${snippet}
${after}
}
main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
`
}
