import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type * as built from '../../../src/persister/persist-result.js'
import { nameProblem } from '../../../src/protocol/key.js'
import { parseRecord } from '../../../src/protocol/parse.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { BUNDLE, run } from '../../support/persister/program.js'
import { choose, last, thorough } from '../../support/thorough.js'
import { allShells, SCRIPT } from '../persister-sh/shells.js'

// In this process: what the shell costs is enough.
const { listResults, persistResult, retrieveResult } = createRequire(import.meta.url)(BUNDLE) as typeof built

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

interface Handed {
  readonly name: string
  readonly metadata: object
  readonly content: Buffer
}

const handed: fc.Arbitrary<Handed> = fc.record({
  name: fc
    .oneof(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 80 }),
      fc.string({ unit: fc.constantFrom(...'\'"\\$`*?[]{}()<>|&;!#~=%-. \u{1f600}ü'), minLength: 1 }),
      fc.string({ minLength: 200, maxLength: 255 }),
    )
    .filter((name) => nameProblem(name) === undefined),
  metadata: fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ stringUnit: 'binary' })),
  content: fc.uint8Array({ maxLength: 5000 }).map((bytes) => Buffer.from(bytes)),
})

const taskId = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/)

describe.each(choose(allShells, last))('whatever is stored, by Node and by $name', ({ argv }) => {
  const shell = (env: Record<string, string>, args: string[], input?: Buffer) =>
    run([...argv, SCRIPT, ...args], { env, ...(input === undefined ? {} : { input }) })

  async function exchangeResults(task: string, byNode: Handed[], byShell: Handed[]): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'persister-both-'))
    const env = { WORKER_RESULTS_LOCAL_DIR: folder, WORKER_ID: task }
    const options = { env, warn: () => {} }
    try {
      const stored = new Map<string, Handed>()
      for (const one of byNode)
        stored.set((await persistResult(one.content, { ...options, ...one })).key, one)
      const keysOfNode = [...stored.keys()]
      for (const one of byShell) {
        const args = ['-q', '-', `--name=${one.name}`, '-m', JSON.stringify(one.metadata)]
        const { status, stdout, stderr } = await shell(env, args, one.content)
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
        stored.set(stdout.slice(0, -1), one)
      }
      const listed = await listResults(task, options)
      const { stdout } = await shell(env, ['--list', '--json'])
      expect(stdout.trimEnd().split('\n').map(parseRecord)).toEqual(listed)
      expect(new Set(listed.map(({ key }) => key))).toEqual(new Set(stored.keys()))
      await Promise.all(listed.map((record) => hold(record, stored.get(record.key))))
      for (const key of keysOfNode) {
        const read = await shell(env, ['--retrieve', key])
        expect(read.stdoutBytes.equals(stored.get(key)?.content ?? Buffer.of(0))).toBe(true)
      }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }

    async function hold(record: ResultRecord, one: Handed | undefined): Promise<void> {
      expect(one).toBeDefined()
      if (one === undefined) return
      expect(record).toMatchObject({ name: one.name, task_id: task, sha256: sha256(one.content) })
      expect(JSON.stringify(record.metadata)).toBe(JSON.stringify(one.metadata))
      expect((await retrieveResult(record.key, options)).equals(one.content)).toBe(true)
    }
  }

  it('the other lists and retrieves as it was', async () => {
    const some = fc.array(handed, { minLength: 1, maxLength: 2 })
    await fc.assert(fc.asyncProperty(taskId, some, some, exchangeResults), { numRuns: thorough ? 40 : 6 })
  }, 120_000)
})
