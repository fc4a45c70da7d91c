import { afterAll, expect, it } from 'vitest'
import { Granter } from '../../../src/grants/granter.js'
import { WorkerGrant } from '../../../src/grants/worker-grant.js'
import type { Grant } from '../../../src/protocol/grant.js'
import type { RemoteSandbox, SandboxFile } from '../../../src/sandbox/remote-sandbox.js'
import { openS3Location } from '../../../src/stores/s3/s3-location.js'

const PATH = '/results/.worker/task/grant.json'
const at = openS3Location({ bucket: 'bucket', credentials: { accessKeyId: 'a', secretAccessKey: 's' } })
afterAll(() => at.close())

it('leaves the grant that lasts longest, however late an earlier one gets there', async () => {
  const files = new Map<string, string>()
  let first: () => void = () => {}
  let writes = 0
  const put = (all: readonly SandboxFile[]): void => {
    for (const { path, data } of all) files.set(path, String(data))
  }
  const sandbox: Partial<RemoteSandbox> = {
    id: 'sandbox',
    // The first one takes until it is told to go on.
    writeFiles: async (all) => {
      if (writes++ > 0) return put(all)
      await new Promise<void>((done) => {
        first = done
      })
      put(all)
    },
    run: async (command) => {
      const [, from = ''] = /chmod 600 '([^']+)'/.exec(command) ?? []
      files.set(PATH, files.get(from) ?? '')
      return { exitCode: 0, stdout: '', stderr: '' }
    },
  }
  const granter = new Granter({ s3: at, maxResultBytes: 1000 })
  const inMinutes = (minutes: number): Date => new Date(Date.now() + minutes * 60_000)
  const options = { taskId: 'task', localDir: '/results', access: 'policy' } as const
  const grant = await WorkerGrant.issue(granter, options, inMinutes(1))
  const last = inMinutes(120)
  const both = [
    grant.refresh(sandbox as RemoteSandbox, inMinutes(60)),
    grant.refresh(sandbox as RemoteSandbox, last),
  ]
  while (writes === 0) await new Promise((done) => setImmediate(done))
  // Time for the second one to overtake it, if it may.
  for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done))
  first()
  await Promise.all(both)
  expect((JSON.parse(files.get(PATH) ?? '') as Grant).expires_at).toBe(last.toISOString())
  await grant.end()
})
