import { mkdir, readdir, readFile, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DirectoryBackend, type EndpointBackend, type StagedBody } from '../../../src/endpoint/index.js'
import { readAll, recordFor, type SeedSpec } from '../../support/records.js'
import { s3Servers } from '../../support/s3/servers.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'
import { inDirectory, inS3, type TestBackend } from './servers.js'

const stage = (backend: EndpointBackend, body: string): Promise<StagedBody> =>
  backend.staging.receive([Buffer.from(body)])
const PAGE = { after: '', limit: 100, maxBytes: 1 << 20 }

async function commit(backend: EndpointBackend, spec: SeedSpec, body: string) {
  const staged = await stage(backend, body)
  try {
    return await backend.commit(staged, recordFor(spec, Buffer.from(body)))
  } finally {
    await backend.staging.discard(staged)
  }
}

describe.each([inDirectory, ...s3Servers().map(inS3)])('EndpointBackend: $name', ({ open }) => {
  let kept: TestBackend
  let backend: EndpointBackend
  beforeAll(async () => {
    kept = await open()
    backend = kept.backend
  })
  afterAll(() => kept?.[Symbol.asyncDispose]())

  it('keeps what is committed, and gives it back', async () => {
    const spec = { taskId: 'keep', name: 'r', metadata: { ü: [1, '😀'] }, archive: 'tar.gz' as const }
    const { outcome, record } = await commit(backend, spec, 'hello')
    expect(outcome).toBe('created')
    const { stored: _, ...expected } = record
    expect(await backend.read(record.key)).toMatchObject(expected)
    const whole = await backend.open(record.key, { start: 0, end: 5 })
    expect((await readAll(whole)).toString()).toBe('hello')
    const part = await backend.open(record.key, { start: 1, end: 3 })
    expect((await readAll(part)).toString()).toBe('el')
    expect(await backend.usage('keep')).toEqual({ count: 1, sizeBytes: 5 })
  })

  it('tells the same from other bytes, and lets the first ones stay', async () => {
    const spec = { taskId: 'twice', name: 'r' }
    const outcomes: string[] = []
    for (const body of ['one', 'one', 'two']) outcomes.push((await commit(backend, spec, body)).outcome)
    expect(outcomes).toEqual(['created', 'unchanged', 'conflict'])
    const { key } = recordFor(spec, Buffer.from('one'))
    expect((await readAll(await backend.open(key, { start: 0, end: 3 }))).toString()).toBe('one')
  })

  it('lets one of two commits at once be the first', async () => {
    const spec = { taskId: 'race', name: 'r', metadata: { long: 'x'.repeat(5000) } }
    const bodies = ['a', 'b', 'a', 'c']
    const commits = await Promise.all(bodies.map((body) => commit(backend, spec, body)))
    expect(commits.filter(({ outcome }) => outcome === 'created')).toHaveLength(1)
    const kept = commits[0]?.record.sha256
    for (const [i, { outcome }] of commits.entries()) {
      const same = recordFor(spec, Buffer.from(bodies[i] ?? '')).sha256 === kept
      expect(outcome === 'conflict').toBe(!same)
    }
  })

  it('lists in key order, page by page', async () => {
    const names = ['b', 'a', '\uff5e', '\u{1f600}', 'x'.repeat(250)]
    for (const name of names) await commit(backend, { taskId: 'list', name }, name)
    const seen: string[] = []
    let after = ''
    for (;;) {
      const { records, next } = await backend.list('list', { ...PAGE, after, limit: 2 })
      seen.push(...records.map(({ name }) => name))
      if (next === undefined) break
      after = next
    }
    expect(seen).toEqual(['a', 'b', 'x'.repeat(250), '\uff5e', '\u{1f600}'])
    const small = await backend.list('list', { ...PAGE, maxBytes: 1 })
    expect([small.records.length, small.next]).toEqual([1, 'list/20260114-120000-a'])
    expect(await backend.list('nobody', PAGE)).toEqual({ records: [], next: undefined })
  })

  it('lists the tasks there are, page by page, with what each keeps', async () => {
    const own = await open()
    try {
      for (const taskId of ['a', 'a-b', 'a.b', 'a0', 'Z', 'z']) {
        await commit(own.backend, { taskId, name: 'r' }, 'four')
        await commit(own.backend, { taskId, name: 'long', metadata: { long: 'x'.repeat(5000) } }, 'more')
      }
      await commit(own.backend, { taskId: 'empty', name: 'r' }, 'x')
      const { key } = recordFor({ taskId: 'empty', name: 'r' }, Buffer.from('x'))
      expect(await own.backend.delete(key)).toBe(true)
      const seen: string[] = []
      for (let after: string | undefined = ''; after !== undefined; ) {
        const page = await own.backend.listTasks({ after, limit: 2 })
        expect(page.tasks.length).toBeLessThan(3)
        for (const { taskId, updatedAt, count, sizeBytes } of page.tasks) {
          seen.push(taskId)
          expect({ count, sizeBytes }).toEqual({ count: 2, sizeBytes: 8 })
          expect(Math.abs(updatedAt.getTime() - Date.now())).toBeLessThan(60_000)
        }
        after = page.next
      }
      expect(seen.sort()).toEqual(['Z', 'a', 'a-b', 'a.b', 'a0', 'z'])
    } finally {
      await own[Symbol.asyncDispose]()
    }
  })

  it('knows what is not there, and what is deleted', async () => {
    const spec = { taskId: 'gone', name: 'r', metadata: { long: 'x'.repeat(5000) } }
    const { record } = await commit(backend, spec, 'x')
    expect(await backend.delete(record.key)).toBe(true)
    expect(await backend.delete(record.key)).toBe(false)
    expect(await backend.read(record.key)).toBeUndefined()
    await expect(backend.open(record.key, { start: 0, end: 1 }).then(readAll)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    })
    expect(await backend.list('gone', PAGE)).toEqual({ records: [], next: undefined })
    expect((await commit(backend, spec, 'other')).outcome).toBe('created')
  })

  it('leaves no upload behind, whatever becomes of it', async () => {
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield Buffer.from('half')
      throw new Error('cut off')
    }
    await expect(backend.staging.receive(failing())).rejects.toThrow('cut off')
    const refuse = (): never => {
      throw new Error('too large')
    }
    await expect(backend.staging.receive([Buffer.from('x')], refuse)).rejects.toThrow('too large')
    expect(await readdir(backend.staging.path)).toEqual(['owner.json'])
  })
})

describe('a directory after a crash', () => {
  const spec = { taskId: 't', name: 'r' }
  const { key } = recordFor(spec, Buffer.from('x'))

  /** A folder as a process leaves it that dies after the body got its name, and before the record did. */
  const crashed = async (): Promise<TempDir> => {
    const dir = await makeTempDir()
    await mkdir(join(dir.path, 't'))
    await writeFile(join(dir.path, key), 'x')
    return dir
  }
  const inMinutes = (minutes: number) => (): number => Date.now() + minutes * 60_000

  it('has a half-made commit finished by the same bytes, and not touched by others', async () => {
    await using dir = await crashed()
    const backend = await DirectoryBackend.open(dir.path)
    expect(await backend.read(key)).toBeUndefined()
    expect(await backend.list('t', PAGE)).toEqual({ records: [], next: undefined })
    await expect(commit(backend, spec, 'other')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      retryable: true,
    })
    expect((await commit(backend, spec, 'x')).outcome).toBe('created')
    expect((await readAll(await backend.open(key, { start: 0, end: 1 }))).toString()).toBe('x')
    await backend.close()
  })

  it('has it replaced by others once it is surely dead', async () => {
    await using dir = await crashed()
    const backend = await DirectoryBackend.open(dir.path, { now: inMinutes(2) })
    expect((await commit(backend, spec, 'other')).outcome).toBe('created')
    expect((await readAll(await backend.open(key, { start: 0, end: 5 }))).toString()).toBe('other')
    await backend.close()
  })

  it('is rid of bodies without records in the end, and of nothing else', async () => {
    await using dir = await crashed()
    const first = await DirectoryBackend.open(dir.path)
    await commit(first, { taskId: 't', name: 'whole' }, 'whole')
    await writeFile(join(dir.path, 't', 'notes.txt'), 'not ours')
    const left = async (): Promise<string[]> => (await readdir(join(dir.path, 't'))).sort()
    const all = await left()
    // Another process is at work: what lies there may be its own.
    const second = await DirectoryBackend.open(dir.path, { now: inMinutes(20) })
    expect(await left()).toEqual(all)
    await first.close()
    await second.close()
    const soon = await DirectoryBackend.open(dir.path, { now: inMinutes(10) })
    await soon.close()
    expect(await left()).toEqual(all)
    const late = await DirectoryBackend.open(dir.path, { now: inMinutes(20) })
    expect(await left()).toEqual(all.filter((name) => name !== '20260114-120000-r'))
    await late.close()
  })

  it('follows no link that somebody planted, neither to read nor to write nor to clear away', async () => {
    await using dir = await makeTempDir()
    await using outside = await makeTempDir()
    await writeFile(join(outside.path, '20260114-120000-precious'), 'x')
    await mkdir(join(dir.path, 't'))
    await symlink(outside.path, join(dir.path, 'evil'))
    await symlink('loop', join(dir.path, 'loop'))
    await symlink('/nowhere', join(dir.path, 't', '20260114-120000-dangling'))
    await symlink(join(outside.path, '20260114-120000-precious'), join(dir.path, key))
    const backend = await DirectoryBackend.open(dir.path, { now: inMinutes(20) })
    await expect(commit(backend, { taskId: 'evil', name: 'r' }, 'x')).rejects.toMatchObject({
      code: 'ACCESS_DENIED',
    })
    expect((await commit(backend, spec, 'other')).outcome).toBe('created')
    expect(await backend.listTasks({ after: '', limit: 10 })).toMatchObject({
      tasks: [{ taskId: 't', count: 1 }],
    })
    expect(await readdir(outside.path)).toEqual(['20260114-120000-precious'])
    expect(await readFile(join(outside.path, '20260114-120000-precious'), 'utf8')).toBe('x')
    await backend.close()
  })

  it('does not let a page of tasks be empty because all of its tasks were deleted', async () => {
    await using dir = await makeTempDir()
    for (const taskId of ['a', 'b', 'c']) await mkdir(join(dir.path, taskId))
    const backend = await DirectoryBackend.open(dir.path)
    await commit(backend, { taskId: 'd', name: 'r' }, 'x')
    await mkdir(join(dir.path, 'e'))
    expect(await backend.listTasks({ after: '', limit: 2 })).toMatchObject({
      tasks: [{ taskId: 'd' }],
      next: 'd',
    })
    expect(await backend.listTasks({ after: 'd', limit: 2 })).toEqual({ tasks: [], next: undefined })
    await backend.close()
  })

  it('is rid of the uploads of processes that are gone, and only of those', async () => {
    await using dir = await makeTempDir()
    const incoming = join(dir.path, '.incoming')
    const first = await DirectoryBackend.open(dir.path)
    await stage(first, 'under way')
    const own = JSON.parse(await readFile(join(first.staging.path, 'owner.json'), 'utf8'))
    const plant = async (name: string, owner: unknown, ageMs = 0): Promise<void> => {
      await mkdir(join(incoming, name))
      const path = join(incoming, name, 'owner.json')
      await writeFile(path, JSON.stringify(owner))
      const then = new Date(Date.now() - ageMs)
      await utimes(path, then, then)
      await utimes(join(incoming, name), then, then)
    }
    await plant('dead', { ...own, pid: 2 ** 22 - 1 })
    await plant('earlier-with-this-pid', { ...own, start: '1' })
    await plant('other-machine', { ...own, place: 'elsewhere' })
    await plant('other-machine-long-ago', { ...own, place: 'elsewhere' }, 30 * 3600_000)
    await plant('half-made-long-ago', 'x', 120_000)
    await plant('being-made', 'x')
    const second = await DirectoryBackend.open(dir.path)
    const left = [first, second].map(({ staging }) => staging.path.slice(incoming.length + 1))
    expect((await readdir(incoming)).sort()).toEqual([...left, 'being-made', 'other-machine'].sort())
    expect(second.staging.alone).toBe(false)
    expect(await readdir(first.staging.path)).toHaveLength(2)
    await first.close()
    await second.close()
  })

  it('heals a result whose bytes were taken away', async () => {
    await using dir = await makeTempDir()
    const backend = await DirectoryBackend.open(dir.path)
    await commit(backend, spec, 'x')
    await writeFile(join(dir.path, key), '')
    await expect(backend.open(key, { start: 0, end: 1 }).then(readAll)).rejects.toMatchObject({
      code: 'INTEGRITY',
    })
    expect((await commit(backend, spec, 'x')).outcome).toBe('unchanged')
    expect((await readAll(await backend.open(key, { start: 0, end: 1 }))).toString()).toBe('x')
    await backend.close()
  })

  it('does not take a record that cannot be read for none', async () => {
    await using dir = await makeTempDir()
    const backend = await DirectoryBackend.open(dir.path)
    await commit(backend, spec, 'x')
    await writeFile(join(dir.path, `${key}.meta.json`), 'broken')
    await expect(commit(backend, spec, 'x')).rejects.toMatchObject({ code: 'INTEGRITY' })
    await backend.close()
  })
})
