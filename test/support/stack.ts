import { Sandbox } from 'e2b'
import { Conductor } from '../../src/conductor/conductor.js'
import type { ConductorOptions } from '../../src/conductor/options.js'
import { type LocalE2b, startLocalE2b } from '../../src/local/e2b/index.js'
import { type LocalS3, startLocalS3 } from '../../src/local/s3/index.js'
import { openS3Location, type S3Location } from '../../src/stores/s3/s3-location.js'

const BUCKET = 'stu-results'

/** A local E2B and S3, and conductors that use them. */
export interface TestStack extends AsyncDisposable {
  readonly e2b: LocalE2b
  readonly s3: LocalS3
  /** The bucket, with the owner's rights. */
  readonly at: S3Location
  /** A conductor for this stack; the test closes it. Nothing comes from the environment. */
  conductor(options?: ConductorOptions): Conductor
  /** Runs a command in a sandbox, past the conductor; gives what it prints. */
  inSandbox(sandboxId: string, command: string): Promise<string>
  /** Pauses a sandbox, past the conductor. */
  pauseSandbox(sandboxId: string): Promise<void>
  /** Kills a sandbox, past the conductor. */
  killSandbox(sandboxId: string): Promise<void>
  /** Id of a task's one sandbox. */
  sandboxOf(taskId: string): Promise<string>
  /** Sandboxes that exist, paused ones included. */
  sandboxCount(): Promise<number>
}

/** Starts both servers. Disposing stops them, with every sandbox that a test forgot. */
export async function startTestStack(): Promise<TestStack> {
  const e2b = await startLocalE2b()
  try {
    const s3 = await startLocalS3({ buckets: [BUCKET] })
    return useServers(e2b, s3)
  } catch (error) {
    await e2b.close()
    throw error
  }
}

function useServers(e2b: LocalE2b, s3: LocalS3): TestStack {
  const s3Options = { bucket: BUCKET, endpoint: s3.url, region: s3.region, credentials: s3.credentials }
  const at = openS3Location(s3Options)
  const connection = { apiKey: e2b.env.E2B_API_KEY ?? '', apiUrl: e2b.url, sandboxUrl: e2b.url }
  return {
    e2b,
    s3,
    at,
    conductor: (options = {}) => new Conductor({ env: e2b.env, s3: s3Options, ...options }),
    inSandbox: async (sandboxId, command) => {
      const sandbox = await Sandbox.connect(sandboxId, connection)
      return (await sandbox.commands.run(command)).stdout
    },
    pauseSandbox: async (sandboxId) => {
      await Sandbox.pause(sandboxId, connection)
    },
    killSandbox: async (sandboxId) => {
      await Sandbox.kill(sandboxId, connection)
    },
    sandboxOf: async (taskId) => {
      const query = { metadata: { 'stu-task': taskId } }
      const found = await Sandbox.list({ ...connection, query }).nextItems()
      if (found.length !== 1 || found[0] === undefined)
        throw new Error(`${taskId}: ${found.length} sandboxes`)
      return found[0].sandboxId
    },
    sandboxCount: async () => {
      const pages = Sandbox.list(connection)
      let count = 0
      while (pages.hasNext) count += (await pages.nextItems()).length
      return count
    },
    [Symbol.asyncDispose]: async () => {
      at.close()
      await e2b.close()
      await s3.close()
    },
  }
}
