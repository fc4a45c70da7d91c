import { chmod, copyFile, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { findProgram } from '../../support/find-program.js'
import { DISTRIBUTION, finish, run, start } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'

const LAUNCHER = join(DISTRIBUTION, 'persist-result')

/** A PATH with nothing but what is named, and a `node` of the test's own making where one is given. */
async function makePath(test: Cleanup, node?: string): Promise<string> {
  const bin = join(await scratch(test), 'bin')
  await mkdir(bin)
  for (const name of ['sh', 'readlink', 'cat', 'date', 'env']) {
    const path = findProgram(name)
    if (path === undefined) throw new Error(`${name} is not installed`)
    await symlink(path, join(bin, name))
  }
  if (node !== undefined) {
    await writeFile(join(bin, 'node'), node)
    await chmod(join(bin, 'node'), 0o755)
  }
  return bin
}

const oldNode = `#!/bin/sh
case $1 in -e) shift; code="Object.defineProperty(process.versions, 'node', { value: '12.22.9' });$1"; shift; exec ${process.execPath} -e "$code" "$@" ;; esac
exec ${process.execPath} "$@"
`

it('starts with Node where there is one, from anywhere', async (test) => {
  const folder = await scratch(test)
  await symlink(LAUNCHER, join(folder, 'absolute'))
  await symlink('absolute', join(folder, 'relative'))
  await mkdir(join(folder, 'a b'))
  await symlink('../relative', join(folder, 'a b', 'deep $x'))
  for (const [argv, cwd] of [
    [[LAUNCHER], folder],
    [['./relative'], folder],
    [['./deep $x'], join(folder, 'a b')],
    [[join(folder, 'a b', 'deep $x')], '/'],
    [['sh', 'persist-result'], DISTRIBUTION],
  ] as const) {
    const { stdout, stderr, status } = await run([...argv, '--version'], { cwd })
    expect({ stdout, stderr, status }).toEqual({
      stdout: expect.stringMatching(/^persist-result \S+ \(node 2\d\.\d+\.\d+\)\n$/),
      stderr: '',
      status: 0,
    })
  }
})

it('is found on the PATH by its name', async (test) => {
  const PATH = `${DISTRIBUTION}:${process.env.PATH}`
  const env = { PATH, WORKER_RESULTS_LOCAL_DIR: await scratch(test), WORKER_ID: 't' }
  const stored = await run(['sh', '-c', 'persist-result -q - --name "$1"', 'sh', "a 'b' $c"], {
    env,
    input: 'x',
  })
  expect(stored).toMatchObject({ status: 0, stderr: '' })
  expect(stored.key).toMatch(/-a 'b' \$c$/)
})

it('starts with the shell alone where there is no Node', async (test) => {
  const PATH = await makePath(test)
  expect((await run([LAUNCHER, '--version'], { env: { PATH } })).stdout).toMatch(/ \(sh\)\n$/)
  expect((await run([LAUNCHER, '-n', '', 'x'], { env: { PATH } })).status).toBe(2)
})

it('starts with the shell alone where the program for Node does not lie beside it', async (test) => {
  const folder = await scratch(test)
  for (const name of ['persist-result', 'persist-result.sh'])
    await copyFile(join(DISTRIBUTION, name), join(folder, name))
  expect((await run([join(folder, 'persist-result'), '--version'])).stdout).toMatch(/ \(sh\)\n$/)
})

it('hands over to the shell from a Node that is too old, with its status, input and signals', async (test) => {
  const PATH = `${await makePath(test, oldNode)}:${process.env.PATH}`
  const env = { PATH, WORKER_RESULTS_LOCAL_DIR: await scratch(test), WORKER_ID: 't' }
  expect((await run([LAUNCHER, '--version'], { env })).stdout).toMatch(/ \(sh\)\n$/)
  expect((await run([LAUNCHER, '--nonsense'], { env })).status).toBe(2)
  const { key } = await run([LAUNCHER, '-q', '-', '-n', 'x'], { env, input: 'content' })
  expect((await run([LAUNCHER, '-r', key], { env })).stdout).toBe('content')
  const child = start(
    [LAUNCHER, 'run', '--', 'sh', '-c', 'trap "exit 9" TERM; echo up; while :; do sleep 0.05; done'],
    { env },
  )
  child.stdout?.once('data', () => child.kill('SIGTERM'))
  expect((await finish(child)).status).toBe(9)
})
