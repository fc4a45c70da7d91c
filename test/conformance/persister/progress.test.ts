import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { leaveOut } from '../../support/leave-out.js'
import { type FaultProxy, startFaultProxy } from '../../support/persister/fault-proxy.js'
import { bareEnvironment, type RunResult, run } from '../../support/persister/program.js'
import { spoolTarget } from '../../support/persister/targets.js'
import { makeWorker } from '../../support/persister/worker.js'
import { implementations } from './implementations.js'

const script = findProgram('script')
if (script === undefined) leaveOut('progress on a terminal', 'script, of util-linux, is not installed')

const ERASE = '\r\u001b[K'
const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

describe.skipIf(script === undefined).concurrent.each(implementations)('progress, $name', ({ argv }) => {
  /** Takes everything and never answers, so that an upload lasts as long as patience does. */
  let slow: FaultProxy
  beforeAll(async () => {
    slow = await startFaultProxy('http://127.0.0.1:9', () => ({ kind: 'hang' }))
  })
  afterAll(() => slow[Symbol.asyncDispose]())

  it('is one line on a terminal, after a second, and nothing with --quiet or elsewhere', async (test) => {
    const worker = await makeWorker(test, argv, spoolTarget, {
      WORKER_RESULTS_ENDPOINT: slow.url,
      WORKER_RESULTS_STALL_SECONDS: '3',
      WORKER_RESULTS_DEADLINE_SECONDS: '3',
    })
    await writeFile(join(worker.folder, "it's big"), randomBytes(100_000))
    const onTerminal = (...args: string[]): Promise<RunResult> => {
      const command = [...argv, ...args].map(quote).join(' ')
      return run([script ?? '', '-qec', command, '/dev/null'], {
        env: bareEnvironment(worker.env),
        cwd: worker.folder,
      })
    }
    const [shown, quiet, plain] = await Promise.all([
      onTerminal("it's big"),
      onTerminal('-q', "it's big"),
      worker.persist(["it's big"]),
    ])
    expect(shown.status).toBe(0)
    const line = `${ERASE}persist-result: it's big: sent 0.1 MB of 0.1 MB (100 %)`
    expect(shown.stdout).toContain(line)
    // The line is gone in the end.
    expect(shown.stdout.slice(shown.stdout.lastIndexOf(line) + line.length)).toContain(ERASE)
    for (const { stdout, stderr } of [quiet, plain]) expect(stdout + stderr).not.toContain(ERASE)
  })
})
