import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import {
  FileNotFoundError,
  type FilesystemEvent,
  FilesystemEventType,
  FileType,
  InvalidArgumentError,
  type Sandbox,
} from 'e2b'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeNamespaces, eventually, ISOLATIONS, useHarness } from './harness.js'

/** A path as a command that nothing rewrites. */
function hidden(path: string): string {
  return `$(echo ${Buffer.from(path).toString('base64')} | base64 -d)`
}

describe.each(ISOLATIONS)('files (%s)', (isolation) => {
  const harness = useHarness({ isolation })
  let sandbox: Sandbox
  let outside: string
  beforeAll(async () => {
    outside = await mkdtemp(join(tmpdir(), 'outside-'))
    await writeFile(join(outside, 'secret'), 'of this machine')
    sandbox = await harness().create()
  })
  afterAll(() => rm(outside, { recursive: true, force: true }))

  it('writes and reads text, bytes and empty files', async () => {
    const bytes = new Uint8Array(randomBytes(100_000))
    await sandbox.files.write('/workspace/sub/bytes', bytes.buffer)
    expect(await sandbox.files.read('/workspace/sub/bytes', { format: 'bytes' })).toEqual(bytes)
    await sandbox.files.write('/workspace/text', 'first and longer')
    await sandbox.files.write('/workspace/text', 'zweit ü')
    expect(await sandbox.files.read('/workspace/text')).toBe('zweit ü')
    expect((await sandbox.commands.run('cat /workspace/text')).stdout).toBe('zweit ü')
    await sandbox.files.write('/workspace/empty', '')
    expect(await sandbox.files.read('/workspace/empty')).toBe('')
    await sandbox.files.write('relative', 'at home')
    expect(await sandbox.files.read('/home/user/relative')).toBe('at home')
    expect(await sandbox.files.read('~/relative')).toBe('at home')
  })

  it('writes many files in one request, in order', async () => {
    const files = Array.from({ length: 200 }, (_, i) => ({
      path: `/workspace/many/d${i % 7}/f ${i} ü`,
      data: `data ${i}`,
    }))
    const written = await sandbox.files.write(files)
    expect(written.map(({ path }) => path)).toEqual(files.map(({ path }) => path))
    expect(
      (
        await sandbox.commands.run('cat /workspace/many/d3/f\\ 199\\ ü /workspace/many/*/* | wc -c')
      ).stdout.trim(),
    ).toBe(String(files.reduce((sum, { data }) => sum + data.length, 'data 199'.length)))
  })

  it('writes a streamed body as it arrives', async () => {
    const chunk = new Uint8Array(randomBytes(1 << 20))
    let sent = 0
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (sent === 24) return controller.close()
        // What was sent long enough ago for the buffers on the way to have passed it on is on disk before the rest exists.
        await eventually(
          async () => (sent < 8 ? 0 : (await sandbox.files.getInfo('/workspace/large')).size),
          (size) => size >= (sent - 8) * chunk.length,
        )
        sent += 1
        controller.enqueue(chunk)
      },
    })
    await sandbox.files.write('/workspace/large', body)
    const hash = createHash('sha256')
    for (let i = 0; i < 24; i += 1) hash.update(chunk)
    const read = createHash('sha256')
    const stream = await sandbox.files.read('/workspace/large', { format: 'stream' })
    for await (const part of stream) read.update(part)
    expect(read.digest('hex')).toBe(hash.digest('hex'))
  })

  it('breaks off a file that shrinks while it is read, instead of leaving its reader to wait', async () => {
    await sandbox.commands.run('head -c 50000000 /dev/zero >/workspace/shrinks')
    const stream = await sandbox.files.read('/workspace/shrinks', { format: 'stream' })
    const reader = stream.getReader()
    await reader.read()
    await sandbox.commands.run(': >/workspace/shrinks')
    const readOn = async (): Promise<void> => {
      for (;;) if ((await reader.read()).done) return
    }
    await expect(readOn()).rejects.toThrow()
  })

  it('answers an upload that it cannot take before all of it has come', async () => {
    const large = sandbox.files.write('/workspace', 'x'.repeat(1_000_000), { requestTimeoutMs: 5_000 })
    await expect(large).rejects.toThrow(InvalidArgumentError)
  })

  it('takes and gives compressed bodies', async () => {
    await sandbox.files.write('/workspace/zipped', 'squeeze '.repeat(10_000), { gzip: true })
    expect(await sandbox.files.read('/workspace/zipped', { gzip: true })).toBe('squeeze '.repeat(10_000))
    const response = await harness().envd(sandbox, '/files?path=/workspace/zipped', {
      headers: { 'Accept-Encoding': 'gzip' },
    })
    expect(response.headers.get('content-encoding')).toBe('gzip')
    await response.arrayBuffer()
  })

  it('refuses what is not there, not a file, or not what it says', async () => {
    await expect(sandbox.files.read('/workspace/none')).rejects.toThrow(FileNotFoundError)
    await expect(sandbox.files.read('/workspace')).rejects.toThrow(InvalidArgumentError)
    await expect(sandbox.files.write('/workspace', 'x')).rejects.toThrow(InvalidArgumentError)
    await sandbox.files.write('/workspace/plain-file', 'x')
    await expect(sandbox.files.write('/workspace/plain-file/below', 'x')).rejects.toThrow(
      InvalidArgumentError,
    )
    for (const init of [
      { body: gzipSync('x').subarray(0, 15), headers: { 'Content-Encoding': 'gzip' } },
      { body: 'x', headers: { 'Content-Encoding': 'br' } },
      { body: 'no parts', headers: { 'Content-Type': 'multipart/form-data; boundary=b' } },
      {
        body: '--b\r\nContent-Disposition: form-data; name="file"; filename="/workspace/cut"\r\n\r\nhalf',
        headers: { 'Content-Type': 'multipart/form-data; boundary=b' },
      },
      { body: 'x', headers: { 'Content-Type': 'multipart/form-data' } },
    ]) {
      const response = await harness().envd(sandbox, '/files?path=/workspace/odd', {
        method: 'POST',
        ...init,
      })
      expect([init.body, response.status]).toEqual([init.body, 400])
    }
  })

  it('lists in order and to the depth asked for', async () => {
    await sandbox.files.write([
      { path: '/workspace/tree/b/c', data: '' },
      { path: '/workspace/tree/a', data: '1234' },
    ])
    const names = async (depth: number) =>
      (await sandbox.files.list('/workspace/tree', { depth })).map(({ path, type, size }) => [
        path,
        type,
        type === 'file' ? size : 0,
      ])
    expect(await names(1)).toEqual([
      ['/workspace/tree/a', 'file', 4],
      ['/workspace/tree/b', 'dir', 0],
    ])
    expect((await names(2)).at(-1)).toEqual(['/workspace/tree/b/c', 'file', 0])
    await expect(sandbox.files.list('/workspace/none')).rejects.toThrow(FileNotFoundError)
    await expect(sandbox.files.list('/workspace/tree/a')).rejects.toThrow(InvalidArgumentError)
  })

  it('describes files, folders and links', async () => {
    await sandbox.files.write('/workspace/info/f', 'abc')
    await sandbox.commands.run('cd /workspace/info && chmod 640 f && ln -s f link && ln -s /nowhere broken')
    expect(await sandbox.files.getInfo('/workspace/info/f')).toMatchObject({
      name: 'f',
      type: FileType.FILE,
      size: 3,
      mode: 0o640,
      permissions: '-rw-r-----',
      owner: 'user',
    })
    expect(await sandbox.files.getInfo('/workspace/info')).toMatchObject({ type: FileType.DIR })
    expect(await sandbox.files.getInfo('/workspace/info/link')).toMatchObject({
      type: FileType.FILE,
      permissions: 'Lrwxrwxrwx',
      symlinkTarget: '/workspace/info/f',
    })
    expect(await sandbox.files.exists('/workspace/info/broken')).toBe(true)
    expect(await sandbox.files.exists('/workspace/info/none')).toBe(false)
    expect(await sandbox.files.exists('/workspace/info/f/below')).toBe(false)
  })

  it('makes, renames and removes', async () => {
    expect(await sandbox.files.makeDir('/workspace/made/deep')).toBe(true)
    expect(await sandbox.files.makeDir('/workspace/made/deep')).toBe(false)
    await sandbox.files.write('/workspace/made/file', 'x')
    await expect(sandbox.files.makeDir('/workspace/made/file')).rejects.toThrow(InvalidArgumentError)
    expect(await sandbox.files.rename('/workspace/made/file', '/workspace/elsewhere/new')).toMatchObject({
      path: '/workspace/elsewhere/new',
    })
    expect(await sandbox.files.read('/workspace/elsewhere/new')).toBe('x')
    await expect(sandbox.files.rename('/workspace/made/file', '/workspace/y')).rejects.toThrow(
      FileNotFoundError,
    )
    await sandbox.commands.run('cd /workspace/made && mkdir -p a/b/c && touch a/b/c/f && ln -s /usr usr')
    await sandbox.files.remove('/workspace/made')
    expect(await sandbox.files.exists('/workspace/made')).toBe(false)
    await sandbox.files.remove('/workspace/made')
  })

  it('remembers what was said about a file until it is written again', async () => {
    const metadata = { author: 'someone', 'x-2': 'y' }
    expect(await sandbox.files.write('/workspace/told', 'x', { metadata })).toMatchObject({ metadata })
    expect((await sandbox.files.getInfo('/workspace/told')).metadata).toEqual(metadata)
    await sandbox.files.rename('/workspace/told', '/workspace/told-2')
    expect((await sandbox.files.getInfo('/workspace/told-2')).metadata).toEqual(metadata)
    await sandbox.files.write('/workspace/told-2', 'y')
    expect((await sandbox.files.getInfo('/workspace/told-2')).metadata).toBeUndefined()
  })

  it('watches a folder', async () => {
    await sandbox.files.makeDir('/workspace/watched/below')
    const seen: FilesystemEvent[] = []
    const handle = await sandbox.files.watchDir('/workspace/watched', (event) => void seen.push(event))
    const expectEvent = (type: FilesystemEventType, name: string) =>
      eventually(
        () => seen.map((event) => `${event.type} ${event.name}`),
        (events) => events.includes(`${type} ${name}`),
      )
    await sandbox.files.write('/workspace/watched/a', 'x')
    await expectEvent(FilesystemEventType.CREATE, 'a')
    await expectEvent(FilesystemEventType.WRITE, 'a')
    await sandbox.commands.run('chmod 600 /workspace/watched/a')
    await expectEvent(FilesystemEventType.CHMOD, 'a')
    await sandbox.files.rename('/workspace/watched/a', '/workspace/watched/b')
    await expectEvent(FilesystemEventType.RENAME, 'a')
    await expectEvent(FilesystemEventType.CREATE, 'b')
    await sandbox.files.write('/workspace/watched/below/unseen', 'x')
    await sandbox.files.remove('/workspace/watched/b')
    await expectEvent(FilesystemEventType.REMOVE, 'b')
    expect(seen.map(({ name }) => name)).not.toContain('below/unseen')
    await handle.stop()
  })

  it('watches folders below, also those made later, with what is in them', async () => {
    await sandbox.files.makeDir('/workspace/deep/old')
    const seen: FilesystemEvent[] = []
    const handle = await sandbox.files.watchDir('/workspace/deep', (event) => void seen.push(event), {
      recursive: true,
      includeEntry: true,
    })
    await sandbox.files.write('/workspace/deep/old/x', 'x')
    await sandbox.commands.run('cd /workspace/deep && mkdir -p new/er/est && echo x >new/er/est/file')
    const names = await eventually(
      () => seen.filter(({ type }) => type === FilesystemEventType.CREATE).map(({ name }) => name),
      (names) => names.includes('new/er/est/file') && names.includes('old/x'),
    )
    expect([...names].sort()).toEqual(['new', 'new/er', 'new/er/est', 'new/er/est/file', 'old/x'])
    expect(seen.find(({ name }) => name === 'old/x')?.entry?.path).toBe('/workspace/deep/old/x')
    await handle.stop()
    await expect(sandbox.files.watchDir('/workspace/none', () => {})).rejects.toThrow(FileNotFoundError)
    await expect(sandbox.files.watchDir('/workspace/deep/old/x', () => {})).rejects.toThrow(
      InvalidArgumentError,
    )
  })

  it('serves signed URLs, for one path, one operation, and a time', async () => {
    await sandbox.files.write('/workspace/signed ü', 'signed')
    const url = await sandbox.downloadUrl('/workspace/signed ü', { useSignatureExpiration: 60 })
    expect(await (await fetch(url)).text()).toBe('signed')
    const status = async (change: (url: URL) => void) => {
      const other = new URL(url)
      change(other)
      return (await fetch(other)).status
    }
    expect(await status(({ searchParams }) => searchParams.set('path', '/workspace/text'))).toBe(401)
    expect(await status(({ searchParams }) => searchParams.set('signature_expiration', '9999999999'))).toBe(
      401,
    )
    expect(await status(({ searchParams }) => searchParams.delete('signature'))).toBe(502)
    const expired = await fetch(
      await sandbox.downloadUrl('/workspace/signed ü', { useSignatureExpiration: -1 }),
    )
    expect([expired.status, await expired.text()]).toEqual([401, expect.stringContaining('already expired')])
    const form = new FormData()
    form.append('file', 'as a field')
    const upload = await sandbox.uploadUrl('/workspace/uploaded')
    expect((await fetch(upload, { method: 'POST', body: form })).status).toBe(200)
    expect(await sandbox.files.read('/workspace/uploaded')).toBe('as a field')
    expect((await fetch(url, { method: 'POST', body: form })).status).toBe(401)
  })

  it('never leaves the sandbox through links or dots', async () => {
    const secret = join(outside, 'secret')
    await sandbox.commands.run(
      `cd /workspace && o=${hidden(outside)} && ln -s $o/secret file-link && ln -s $o folder-link && ln -s ../../../../../../..$o/secret dots-link && ln -s loop-b loop-a && ln -s loop-a loop-b`,
    )
    const escapes = [
      secret,
      `/workspace/../../../../../../../../..${secret}`,
      ...['file-link', 'folder-link/secret', 'dots-link'].map((name) => `/workspace/${name}`),
    ]
    for (const path of escapes) {
      await expect(sandbox.files.read(path), path).rejects.toThrow(FileNotFoundError)
    }
    await sandbox.files.write('/workspace/file-link', 'written inside')
    await sandbox.files.write('/workspace/folder-link/planted', 'written inside')
    await sandbox.files.remove('/workspace/folder-link')
    await sandbox.files.remove('/workspace/folder-link/secret')
    expect(await readFile(secret, 'utf8')).toBe('of this machine')
    await expect(readFile(join(outside, 'planted'))).rejects.toThrow('ENOENT')
    await expect(sandbox.files.read('/workspace/loop-a')).rejects.toThrow(InvalidArgumentError)
    await sandbox.commands.run('ln -s /etc/shadow /workspace/shadow; ln -s / /workspace/top')
    await expect(sandbox.files.read('/workspace/shadow')).rejects.toThrow(FileNotFoundError)
    await expect(sandbox.files.read('/workspace/top/etc/shadow')).rejects.toThrow(FileNotFoundError)
    expect((await sandbox.files.list('/workspace/top')).map(({ name }) => name)).toContain('workspace')
  })

  it('is not held up by what only looks like a file', async () => {
    await sandbox.commands.run(
      'cd /workspace && mkfifo fifo && python3 -c "import socket; socket.socket(socket.AF_UNIX).bind(\'sock\')"',
    )
    for (const path of ['/workspace/fifo', '/workspace/sock']) {
      await expect(sandbox.files.read(path), path).rejects.toThrow(InvalidArgumentError)
      await expect(sandbox.files.write(path, 'x'), path).rejects.toThrow(InvalidArgumentError)
      expect(await sandbox.files.exists(path)).toBe(true)
    }
    await sandbox.files.remove('/workspace/fifo')
  })
})

describeNamespaces('files of the system', () => {
  const harness = useHarness({ isolation: 'namespaces' })

  it('shows them read-only', async () => {
    const sandbox = await harness().create()
    expect(await sandbox.files.exists('/usr/bin/env')).toBe(true)
    await expect(sandbox.files.write('/usr/planted', 'x')).rejects.toThrow()
    await expect(sandbox.files.remove('/usr/bin/env')).rejects.toThrow()
    const { stderr } = await sandbox.commands.run(
      'mount -o remount,rw,bind /usr; umount /usr; touch /usr/planted; true',
      { user: 'root' },
    )
    expect(stderr).toContain('Read-only file system')
  })

  it('does not lend a sandbox the rights of the server on files of the kernel', async () => {
    const sandbox = await harness().create()
    await sandbox.commands.run(
      'ln -s /proc/version /workspace/memory; ln -s /proc/sys/kernel/core_pattern /workspace/switch',
    )
    await sandbox.commands.run('touch /workspace/over; mount --bind /proc/kallsyms /workspace/over', {
      user: 'root',
    })
    for (const path of ['/workspace/memory', '/workspace/switch', '/workspace/over', '/proc/1/environ']) {
      await expect(sandbox.files.read(path), path).rejects.toThrow(/belongs to the kernel|EACCES/)
    }
    const before = await readFile('/proc/sys/kernel/core_pattern', 'utf8')
    await expect(sandbox.files.write('/workspace/switch', before)).rejects.toThrow(
      /belongs to the kernel|EACCES/,
    )
  })
})
