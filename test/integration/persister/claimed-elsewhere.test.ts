import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { formatTimestamp } from '../../../src/protocol/key.js'
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
})
