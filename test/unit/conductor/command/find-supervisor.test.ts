import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { FIND_SUPERVISOR } from '../../../../src/conductor/command/inspect.js'
import { RUN_FILES } from '../../../../src/protocol/spool-layout.js'
import { makeTempDir } from '../../../support/temp-dir.js'

const LOOKS = 60

/** How many of so many looks find the supervisor. */
function look(cwd: string): number {
  const script = `n=1 i=0 found=0
while [ $i -lt ${LOOKS} ]; do
  ${FIND_SUPERVISOR}
  if [ -n "$pid" ]; then found=$((found + 1)); fi
  i=$((i + 1))
done
echo $found`
  return Number(execFileSync('sh', ['-c', script], { cwd, encoding: 'utf8' }))
}

it('is found also as it becomes another program, and not once it has ended', async (test) => {
  await using dir = await makeTempDir()
  await mkdir(`${dir.path}/runs/1`, { recursive: true })
  const note = (pid: number | undefined): Promise<void> =>
    writeFile(`${dir.path}/runs/1/${RUN_FILES.pid}`, `${pid}\n`)
  // It does nothing else, so that it has no command line at many moments.
  await writeFile(`${dir.path}/again`, `exec sh ${dir.path}/again run --run-id 1 --\n`)
  const child = spawn('sh', [`${dir.path}/again`, 'run', '--run-id', '1', '--'])
  test.onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'spawn')
  await note(child.pid)
  expect(look(dir.path)).toBe(LOOKS)
  // One of that number that is somebody else's.
  await note(process.pid)
  expect(look(dir.path)).toBe(0)
  // Of what nobody has buried yet there is only the number.
  const parent = spawn('sh', ['-c', 'sh -c "echo \\$\\$" run --run-id 1 -- & exec sleep 1000'])
  test.onTestFinished(() => void parent.kill('SIGKILL'))
  const [number] = (await once(parent.stdout, 'data')) as [Buffer]
  await expect
    .poll(() => execFileSync('ps', ['-o', 'stat=', '-p', String(number).trim()], { encoding: 'utf8' }), {
      timeout: 20_000,
    })
    .toMatch(/^Z/)
  await note(Number(number))
  expect(look(dir.path)).toBe(0)
})
