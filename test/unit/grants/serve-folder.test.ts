import { expect, it, vi } from 'vitest'
import type { CallOptions } from '../../../src/call-options.js'
import { serveBrokerFolder } from '../../../src/grants/broker/serve-folder.js'
import type { RemoteSandbox, SandboxFile } from '../../../src/sandbox/remote-sandbox.js'

/** A sandbox of which only the files count; reading one of a name that starts with `stuck` takes for ever. */
function makeSandbox(): {
  readonly sandbox: RemoteSandbox
  readonly reading: () => number
  readonly mostAtOnce: () => number
  readonly written: SandboxFile[]
  readonly change: (fileName: string) => void
} {
  const written: SandboxFile[] = []
  let change: (fileName: string) => void = () => {}
  let reading = 0
  let most = 0
  const openFile = async (
    path: string,
    { signal }: CallOptions = {},
  ): Promise<ReadableStream<Uint8Array>> => {
    const id = /\/([^/]+)\.request$/.exec(path)?.[1] ?? ''
    if (!id.startsWith('stuck')) return new Blob([JSON.stringify({ id })]).stream()
    reading += 1
    most = Math.max(most, reading)
    return await new Promise((_, reject) => {
      signal?.addEventListener('abort', () => {
        reading -= 1
        reject(signal.reason)
      })
    })
  }
  const sandbox: Partial<RemoteSandbox> = {
    id: 'sandbox',
    openFile,
    writeFiles: async (files) => void written.push(...files),
    watch: async (_folder, onChange) => {
      change = onChange
      return async () => {}
    },
  }
  return {
    sandbox: sandbox as RemoteSandbox,
    reading: () => reading,
    mostAtOnce: () => most,
    written,
    change: (name) => change(name),
  }
}

it('gives up requests that cannot be read, and leaves whoever sends them one connection', async () => {
  const { sandbox, reading, mostAtOnce, written, change } = makeSandbox()
  const answer = async (text: string): Promise<{ id: string; requests: [] }> => ({
    id: (JSON.parse(text) as { id: string }).id,
    requests: [],
  })
  const place = { sandbox, localDir: '/results', taskId: 'task', limitMs: 20 }
  const stop = await serveBrokerFolder(place, { answer })
  for (let i = 0; i < 12; i++) change(`stuck-${i}.request`)
  change('fine.request')
  expect(mostAtOnce()).toBeLessThanOrEqual(8)
  const data = 'stu-broker 1 fine\nend fine\n'
  const fine = { path: '/results/.worker/task/broker/fine.answer', data }
  await vi.waitFor(() => expect(written).toEqual([fine]), 20_000)
  for (let i = 20; i < 24; i++) change(`stuck-${i}.request`)
  await vi.waitFor(() => expect(reading()).toBe(1), 20_000)
  await stop()
})
