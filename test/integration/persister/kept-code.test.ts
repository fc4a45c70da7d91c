import { copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'
import { expect, it } from 'vitest'
import { canMount } from '../../support/can-mount.js'
import { bareEnvironment, DISTRIBUTION, run } from '../../support/persister/program.js'
import { type Cleanup, scratch } from '../../support/persister/scratch.js'
import { choose } from '../../support/thorough.js'

const NAME = `.persist-result-${process.version}-${process.arch}.cache`

if (!canMount)
  console.warn('left out: keeping code on a full or read-only disk, because unshare -rm does not work here')

/** A copy of the program in a folder of its own, and a worker's environment. */
async function install(test: Cleanup) {
  const folder = await scratch(test)
  const bin = join(folder, 'bin')
  await mkdir(bin)
  for (const name of ['persist-result.js', 'package.json'])
    await copyFile(join(DISTRIBUTION, name), join(bin, name))
  await writeFile(join(folder, 'f'), 'content')
  const env = { WORKER_ID: 't', WORKER_RESULTS_LOCAL_DIR: join(folder, 'spool') }
  const program = join(bin, 'persist-result.js')
  /** Stores a result, which has to work whatever lies beside the program. */
  const store = async (more: Readonly<Record<string, string>> = {}): Promise<void> => {
    const stored = await run([process.execPath, program, '-q', 'f'], {
      cwd: folder,
      env: { ...env, ...more },
    })
    expect(stored).toMatchObject({ status: 0, stderr: '', key: expect.stringMatching(/^t\/\d{8}-\d{6}-f$/) })
  }
  return { folder, bin, program, env, store, cache: join(bin, NAME) }
}

it('keeps compiled code from the second call on, and nothing that the first would wait for', async (test) => {
  const { bin, store, cache } = await install(test)
  await store()
  expect((await stat(cache)).size).toBe(0)
  await store()
  const kept = await stat(cache)
  expect(kept.size).toBeGreaterThan(10_000)
  await store()
  expect((await stat(cache)).ino).toBe(kept.ino)
  // V8 refuses it under other flags, which is no reason to replace it.
  await store({ NODE_OPTIONS: '--max-old-space-size=200' })
  expect((await stat(cache)).ino).toBe(kept.ino)
  expect(await readdir(bin)).toHaveLength(3)
})

it('takes nothing for compiled code that is not, and replaces it', async (test) => {
  const { program, store, cache } = await install(test)
  await store()
  await store()
  const kept = await readFile(cache)
  const changed = (at: number): Buffer => {
    const bytes = Buffer.from(kept)
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
    return bytes
  }
  const wrong = [
    changed(40),
    kept.subarray(0, kept.length >> 1),
    changed(0),
    changed(kept.length >> 1),
    Buffer.alloc(kept.length),
    kept.subarray(0, 20),
  ]
  for (const bytes of choose(wrong, (_bytes, i) => i < 2)) {
    await writeFile(cache, bytes)
    await store()
    expect((await readFile(cache)).length).toBeGreaterThan(10_000)
    expect(await readFile(cache)).not.toEqual(bytes)
  }
  // Another program of the same length, with the code of this one: V8 would not see the difference.
  await writeFile(cache, kept)
  const text = await readFile(program, 'latin1')
  await writeFile(
    program,
    text.replace('is only in the local spool so far', 'IS ONLY IN THE LOCAL SPOOL SO FAR'),
    'latin1',
  )
  await store()
  expect(await readFile(cache)).not.toEqual(kept)
})

it('works where the place is taken', async (test) => {
  const { bin, store, cache } = await install(test)
  await mkdir(cache)
  await store()
  await store()
  expect((await readdir(bin)).sort()).toEqual([NAME, 'package.json', 'persist-result.js'])
})

// The program, and no room for what it would keep.
const SIZE = 'size=180k'

it.skipIf(!canMount).for(['ro', SIZE])(
  'works on a disk that takes nothing more (%s)',
  async (remount, test) => {
    const { folder, env } = await install(test)
    const call = 'node m/persist-result.js -q f'
    const command = `mkdir m; mount -t tmpfs -o ${SIZE} t m; cp bin/* m; mount -o remount,${remount} m; ${call} && ${call} && ls -A m`
    const { stdout } = await run(['unshare', '-rm', 'sh', '-c', command], { cwd: folder, env })
    expect(stdout).toMatch(/^(t\/\S+-f\n){2}/)
    expect(stdout).not.toContain('.cache.')
  },
)

it('lets several keep it at once', async (test) => {
  const { bin, store, cache } = await install(test)
  await store()
  await Promise.all(Array.from({ length: 5 }, () => store()))
  expect((await stat(cache)).size).toBeGreaterThan(10_000)
  expect(await readdir(bin)).toHaveLength(3)
  await store()
})

it('uses it when a program requires or imports the file, and leaves it to the command line to keep it', async (test) => {
  const { folder, program, cache, store } = await install(test)
  const env = bareEnvironment()
  const names = `['flush', 'listResults', 'persistResult', 'retrieveResult']`
  const required = `if (String(Object.keys(require(${JSON.stringify(program)}))) !== String(${names})) process.exit(1)`
  const imported = `import { flush, listResults, persistResult, retrieveResult } from ${JSON.stringify(program)}`
  for (const round of [1, 2, 3]) {
    expect((await run([process.execPath, '-e', required], { cwd: folder, env })).status).toBe(0)
    expect(
      (await run([process.execPath, '--input-type=module', '-e', imported], { cwd: folder, env })).status,
    ).toBe(0)
    if (round === 1) await expect(stat(cache)).rejects.toThrow('ENOENT')
    await store()
  }
  expect((await stat(cache)).size).toBeGreaterThan(10_000)
})

it('says what to bundle instead, which works', async (test) => {
  const { folder, env } = await install(test)
  const bundled = async (name: string) => {
    const contents = `require(${JSON.stringify(join(DISTRIBUTION, name))}).persistResult('content', { name: 'n' }).then(({ key }) => console.log(key))`
    const outfile = join(folder, 'out.cjs')
    await build({
      stdin: { contents, resolveDir: folder },
      outfile,
      bundle: true,
      platform: 'node',
      logLevel: 'silent',
    })
    return await run([process.execPath, outfile], { cwd: folder, env })
  }
  expect((await bundled('persist-result.js')).stderr).toMatch(
    /cannot be made part of another file; stu-conductor\/persist-result can/,
  )
  expect(await bundled('module.js')).toMatchObject({
    status: 0,
    stderr: '',
    key: expect.stringMatching(/-n$/),
  })
})
