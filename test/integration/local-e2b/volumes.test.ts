import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Volume, VolumeError, VolumeNotFoundError, VolumePathNotFoundError } from 'e2b'
import { describe, expect, it } from 'vitest'
import { ISOLATIONS, startHarness, useHarness } from './harness.js'

describe.each(ISOLATIONS)('volumes (%s)', (isolation) => {
  const harness = useHarness({ isolation })
  const content = () => ({ apiUrl: harness().e2b.url })

  it('can be created, found, listed and destroyed', async () => {
    const { connection } = harness()
    const volume = await Volume.create('first', connection)
    expect(await Volume.getInfo(volume.volumeId, connection)).toMatchObject({
      name: 'first',
      token: volume.token,
    })
    expect((await Volume.connect(volume.volumeId, connection)).name).toBe('first')
    expect(await Volume.list(connection)).toContainEqual({ volumeId: volume.volumeId, name: 'first' })
    await expect(Volume.create('first', connection)).rejects.toThrow(/already exists/)
    await expect(Volume.create('../odd', connection)).rejects.toThrow(VolumeError)
    expect(await Volume.destroy(volume.volumeId, connection)).toBe(true)
    expect(await Volume.destroy(volume.volumeId, connection)).toBe(false)
    await expect(Volume.connect(volume.volumeId, connection)).rejects.toThrow(VolumeNotFoundError)
  })

  it('can be filled and read without a sandbox', async () => {
    const volume = await Volume.create('content', harness().connection)
    expect(await volume.makeDir('/folder', content())).toMatchObject({ type: 'directory', path: '/folder' })
    expect(await volume.writeFile('/folder/f', 'text ü', content())).toMatchObject({ type: 'file', size: 7 })
    expect(await volume.readFile('/folder/f', content())).toBe('text ü')
    expect(await volume.readFile('/folder/f', { format: 'bytes', ...content() })).toHaveLength(7)
    await expect(volume.writeFile('/folder/f', 'other', content())).rejects.toThrow(VolumeError)
    await volume.writeFile('/folder/f', 'other', { force: true, ...content() })
    expect(await volume.readFile('/folder/f', content())).toBe('other')
    await expect(volume.writeFile('/none/f', 'x', content())).rejects.toThrow(VolumePathNotFoundError)
    await volume.writeFile('/none/f', 'x', { force: true, ...content() })
    expect((await volume.list('/', { depth: 2, ...content() })).map(({ path }) => path)).toEqual([
      '/folder',
      '/folder/f',
      '/none',
      '/none/f',
    ])
    expect(await volume.updateMetadata('/folder/f', { mode: 0o600 }, content())).toMatchObject({
      mode: 0o600,
    })
    expect(await volume.exists('/folder/g', content())).toBe(false)
    await volume.remove('/folder', content())
    expect(await volume.exists('/folder', content())).toBe(false)
    await expect(volume.remove('/folder', content())).rejects.toThrow(VolumePathNotFoundError)
    await expect(volume.readFile('/folder/f', { ...content(), token: 'wrong' })).rejects.toThrow(
      /invalid volume token/,
    )
  })

  it('outlives the sandboxes it is mounted in', async () => {
    const volume = await Volume.create('shared', harness().connection)
    await volume.writeFile('/in', 'from outside', content())
    const mounts = { volumeMounts: { '/workspace/vol': volume } }
    const [one, two] = [await harness().create(mounts), await harness().create(mounts)]
    await one.commands.run(
      'cat /workspace/vol/in >/workspace/vol/copy; ln -s /etc/passwd /workspace/vol/link',
    )
    expect(await two.files.read('/workspace/vol/copy')).toBe('from outside')
    await two.files.write('/workspace/vol/sub/api', 'by api')
    expect((await one.commands.run('cat sub/api', { cwd: '/workspace/vol' })).stdout).toBe('by api')
    expect((await one.getInfo()).volumeMounts).toEqual([{ name: 'shared', path: '/workspace/vol' }])
    await one.kill()
    await two.kill()
    expect(await volume.readFile('/copy', content())).toBe('from outside')
    await expect(volume.readFile('/link', content())).rejects.toThrow(VolumePathNotFoundError)
  })

  it('refuses mounts that cannot be', async () => {
    await expect(harness().create({ volumeMounts: { '/data': 'no-such-volume' } })).rejects.toThrow(
      /not found/,
    )
    const volume = await Volume.create('mountable', harness().connection)
    for (const path of ['/', '/usr/x', '/workspace/../etc', 'relative']) {
      await expect(harness().create({ volumeMounts: { [path]: volume } }), path).rejects.toThrow(/400/)
    }
  })
})

describe('a data folder', () => {
  it('keeps volumes from one server to the next, and serves one at a time', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'data-'))
    try {
      const first = await startHarness({ dataDir })
      const volume = await Volume.create('kept', first.connection)
      await volume.writeFile('/x', 'kept', { apiUrl: first.e2b.url })
      await expect(startHarness({ dataDir })).rejects.toThrow(/uses this folder/)
      await first.e2b.close()
      const second = await startHarness({ dataDir })
      const again = await Volume.connect(volume.volumeId, second.connection)
      expect(await again.readFile('/x', { apiUrl: second.e2b.url })).toBe('kept')
      await second.e2b.close()
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  })
})
