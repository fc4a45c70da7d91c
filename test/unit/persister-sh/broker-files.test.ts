import { once } from 'node:events'
import { type FSWatcher, watch } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { finish, killGroup, type RunResult, start } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { SCRIPT, shells } from './shells.js'

/** A conductor that answers as the test says. */
interface Conductor {
  readonly folder: string
  /** Requests as they were read, each time that one was left. */
  readonly asked: { readonly id: string; readonly op: string; readonly check?: boolean }[]
}

describe.concurrent.each(shells)('requests in files, $name', ({ argv }) => {
  async function open(
    test: Cleanup,
    answer: (path: string, id: string, n: number) => Promise<void>,
  ): Promise<Conductor & { persist(env?: Record<string, string>): ReturnType<typeof start> }> {
    const spool = await scratch(test)
    const folder = join(spool, '.worker/t/broker')
    await mkdir(folder, { recursive: true })
    const asked: { id: string; op: string }[] = []
    const watcher: FSWatcher = watch(folder, (_event, name) => {
      if (name === null || !/^[A-Za-z0-9].*\.request$/.test(name)) return
      void (async () => {
        let text: string
        try {
          text = await readFile(join(folder, name), 'utf8')
        } catch {
          // It is gone: the client is done with it.
          return
        }
        const request = JSON.parse(text) as { id: string; op: string }
        expect(name).toBe(`${request.id}.request`)
        await answer(join(folder, `${request.id}.answer`), request.id, asked.push(request))
      })()
    })
    test.onTestFinished(() => watcher.close())
    const broker = { v: 1, max_bytes: 1000, put_bytes: 1000 }
    const s3 = { bucket: 'b', prefix: 'p', region: 'r', broker }
    const grant = { v: 1, task_id: 't', expires_at: '2099-01-01T00:00:00.000Z', s3 }
    await writeFile(join(spool, 'f'), 'content')
    return {
      folder,
      asked,
      persist: (env = {}) =>
        start([...argv, SCRIPT, '-q', '--require', 's3', join(spool, 'f')], {
          env: {
            WORKER_ID: 't',
            WORKER_RESULTS_LOCAL_DIR: spool,
            WORKER_RESULTS_GRANT: JSON.stringify(grant),
            ...env,
          },
          group: true,
        }),
    }
  }
  const nobody = async (): Promise<void> => {}
  const expectOnlyInSpool = ({ status, stderr }: RunResult, why: RegExp): void => {
    expect(status).toBe(3)
    expect(stderr).toMatch(why)
  }

  it('are left again, wait for the whole answer, and are gone once it is there', async (test) => {
    const seen: IncomingHttpHeaders[] = []
    const store = createServer((request, response) => {
      seen.push(request.headers)
      request.resume().once('end', () => response.end())
    })
    store.listen(0, '127.0.0.1')
    await once(store, 'listening')
    test.onTestFinished(() => {
      store.closeAllConnections()
      store.close()
    })
    const url = `http://127.0.0.1:${(store.address() as AddressInfo).port}/x?a="b"`
    const at = await open(test, async (path, id, n) => {
      // The first time nobody hears it.
      if (n !== 2) return
      const lines = [
        `stu-broker 1 ${id}`,
        'news that nobody knows',
        'expires 2099-01-01T00:00:00.000Z',
        `request - PUT ${url}`,
        'header content-length 7',
        'header x-amz-meta-metadata {"a":"\\"b\\" c: d"}',
        'header authorization signed',
      ]
      await writeFile(path, `${lines.join('\n')}\n`)
      await new Promise((done) => setTimeout(done, 150))
      expect(seen).toEqual([])
      await writeFile(path, `${[...lines, `end ${id}`].join('\n')}\n`)
    })
    const result = await finish(at.persist())
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(at.asked.map(({ op, check }) => [op, check])).toEqual([
      ['put', false],
      ['put', false],
    ])
    expect(new Set(at.asked.map(({ id }) => id)).size).toBe(1)
    expect(seen).toMatchObject([
      { 'content-length': '7', 'x-amz-meta-metadata': '{"a":"\\"b\\" c: d"}', authorization: 'signed' },
    ])
    expect(await readdir(at.folder)).toEqual([])
  })

  it('are given up in time, and taken back', async (test) => {
    const at = await open(test, nobody)
    const result = await finish(at.persist({ WORKER_RESULTS_DEADLINE_SECONDS: '1' }))
    expectOnlyInSpool(result, /^persist-result: S3 storage failed: not done within 1 s\n/)
    expect(await readdir(at.folder)).toEqual([])
  })

  it('are refused for good', async (test) => {
    const at = await open(test, async (path, id) => {
      await writeFile(
        path,
        `stu-broker 1 ${id}\nerror TOO_LARGE final the task has its 3 results\nend ${id}\n`,
      )
    })
    const result = await finish(at.persist())
    expectOnlyInSpool(result, /^persist-result: S3 storage failed: the task has its 3 results\n/)
    expect(at.asked).toHaveLength(1)
    expect(await readdir(at.folder)).toEqual([])
  })

  it('are taken back by a process that is ended', async (test) => {
    const at = await open(test, nobody)
    const child = at.persist()
    test.onTestFinished(() => killGroup(child))
    const finished = finish(child)
    await vi.waitFor(() => expect(at.asked).toHaveLength(1), 20_000)
    child.kill('SIGTERM')
    expect((await finished).status).toBe(143)
    expect(await readdir(at.folder)).toEqual([])
  })
})
