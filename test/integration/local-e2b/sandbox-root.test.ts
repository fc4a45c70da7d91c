import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SandboxRoot } from '../../../src/local/e2b/files/sandbox-root.js'
import { RequestError } from '../../../src/local/e2b/request-error.js'

/** Makes `dir` a folder, nothing, and a link to another folder, over and over, as fast as it goes. */
const SWAP = `
const fs = require('node:fs')
process.chdir(process.argv[1])
console.log('swapping')
for (;;) {
  fs.renameSync('real', 'dir')
  fs.renameSync('dir', 'real')
  fs.symlinkSync(process.argv[2], 'dir')
  fs.unlinkSync('dir')
}`

describe('SandboxRoot', () => {
  let folder: string
  let root: string
  let outside: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'root-'))
    root = join(folder, 'root')
    outside = join(folder, 'outside')
    for (const [path, text] of [
      [join(root, 'race/real'), 'inside'],
      [outside, 'outside'],
    ] as const) {
      await mkdir(path, { recursive: true })
      await writeFile(join(path, 'file'), text)
    }
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  it('follows no link that takes the place of a folder while it looks', async () => {
    const swapper = spawn(process.execPath, ['-e', SWAP, join(root, 'race'), outside], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(swapper.stdout, 'data')
      const sandbox = new SandboxRoot(root)
      let found = 0
      for (const until = Date.now() + 1500; Date.now() < until; ) {
        const text = await sandbox
          .at('/race/dir/file', {}, ({ at }) => readFile(at, 'utf8'))
          .catch((error: unknown) => {
            // Nothing there, or a link where a folder was a moment ago.
            expect(error).toBeInstanceOf(RequestError)
            return undefined
          })
        expect(text).not.toBe('outside')
        if (text !== undefined) found += 1
      }
      expect(found).toBeGreaterThan(0)
    } finally {
      swapper.kill('SIGKILL')
    }
  })

  it('takes dots no higher than its top', async () => {
    const sandbox = new SandboxRoot(root)
    for (const path of ['..', '/../..', '/race/../../../..', '//./race/..']) {
      expect(await sandbox.at(path, {}, async ({ path }) => path)).toBe('/')
    }
  })
})
