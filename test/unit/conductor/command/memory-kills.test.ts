import { execFile } from 'node:child_process'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { noteKills, tellKills } from '../../../../src/conductor/command/memory-kills.js'
import { makeTempDir } from '../../../support/temp-dir.js'

const run = promisify(execFile)

it('the memory killer is blamed for what it did since the command began, and for nothing before', async () => {
  await using dir = await makeTempDir()
  const at = (name: string): string => join(dir.path, name)
  const kernel = { counters: [at('absent'), at('events')], uptime: at('uptime') }
  const sh = async (script: string): Promise<string> => {
    const env = { PATH: `${at('bin')}:${process.env.PATH}` }
    return (await run('bash', ['-c', script], { env })).stdout
  }
  const grow = async (kills: number, messages: string): Promise<void> => {
    await writeFile(at('events'), `low 7\noom 9\noom_kill ${kills}\n`)
    await writeFile(at('bin/dmesg'), `#!/bin/sh\ncat <<'END'\n${messages}\nEND\n`)
    await chmod(at('bin/dmesg'), 0o755)
  }
  await mkdir(at('bin'))
  await writeFile(at('uptime'), '16424.50 30000.00\n')
  const earlier = '[   12.3] usb 1-1\n[16424.40] Killed process 7 (python)'
  await grow(2, earlier)
  // Nothing was written down: all there was may have been it.
  expect(await sh(tellKills(at('before'), kernel))).toBe(
    'oom_kill 2 since the command began\n[16424.40] Killed process 7 (python)\n',
  )
  await sh(noteKills(at('before'), kernel))
  expect(await sh(tellKills(at('before'), kernel))).toBe('')
  await grow(3, `${earlier}\n[16500.10] Killed process 9 (node)`)
  expect(await sh(tellKills(at('before'), kernel))).toBe(
    'oom_kill 1 since the command began\n[16500.10] Killed process 9 (node)\n',
  )
})
