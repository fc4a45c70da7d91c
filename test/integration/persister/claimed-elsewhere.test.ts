import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { formatTimestamp, nextTimestamp } from '../../../src/protocol/key.js'
import { implementations } from '../../conformance/persister/implementations.js'
import { run } from '../../support/persister/program.js'
import { scratch } from '../../support/persister/scratch.js'

describe.each(implementations)('a key that a result outside the spool has, $name', ({ argv }) => {
  it('is not taken again once the spool has room', async (test) => {
    const folder = await scratch(test)
    const claims = join(folder, 'persist-result-claims')
    await mkdir(claims)
    const taken = Array.from(
      { length: 60 },
      (_, i) => `task/${formatTimestamp(new Date(Date.now() + i * 1000))}-name`,
    )
    for (const key of taken) {
      await writeFile(join(claims, createHash('sha256').update(key).digest('hex')), '')
    }
    const env = { WORKER_ID: 'task', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'), TMPDIR: folder }
    const stored = await run([...argv, '-q', '--name', 'name', '-'], { env, cwd: folder, input: 'content' })
    expect(stored).toMatchObject({ status: 0, stderr: '' })
    expect(stored.key).toMatch(/^task\/\d{8}-\d{6}-name$/)
    expect(taken).not.toContain(stored.key)
  })

  it('is passed over when a store has another result under the first', async (test) => {
    const folder = await scratch(test)
    const claims = join(folder, 'persist-result-claims')
    await mkdir(claims)
    const asked: string[] = []
    const claimed: string[] = []
    const server = createServer((request, response) => {
      void text(request).then(async (form) => {
        const stamp = /task\/(\d{8}-\d{6})-name/.exec(form)?.[1] ?? ''
        asked.push(stamp)
        if (asked.length > 1) return response.end()
        for (let next = nextTimestamp(stamp); claimed.length < 3; next = nextTimestamp(next)) {
          claimed.push(next)
          await writeFile(join(claims, createHash('sha256').update(`task/${next}-name`).digest('hex')), '')
        }
        response.writeHead(409).end()
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    test.onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const env = {
      WORKER_ID: 'task',
      WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool'),
      WORKER_RESULTS_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      TMPDIR: folder,
    }
    const stored = await run([...argv, '-q', '--name', 'name', '-'], { env, cwd: folder, input: 'content' })
    expect(stored).toMatchObject({ status: 0, stderr: '' })
    expect(asked).toEqual([asked[0], nextTimestamp(claimed.at(-1) ?? '')])
    expect(stored.key).toBe(`task/${asked[1]}-name`)
  })
})
