import { once } from 'node:events'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DirectoryFiles } from '../../../src/stores/directory-files.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { inflateInFolder, plantInFolder, plantJunkInFolder } from '../../support/plant-spool.js'
import { collect, recordFor } from '../../support/records.js'
import { makeTempDir } from '../../support/temp-dir.js'
import { describeResultStore } from './result-store.js'

describeResultStore('directory', async () => {
  const dir = await makeTempDir()
  return {
    store: new SpoolStore('directory', 'directory', new DirectoryFiles(dir.path)),
    seed: async (results) => {
      for (const { record, body } of results) await plantInFolder(dir.path, record, body)
    },
    forge: async (results) => {
      for (const { record, body } of results) await plantInFolder(dir.path, record, body)
    },
    inflateRecord: (record, sizeBytes) => inflateInFolder(dir.path, record, sizeBytes),
    seedJunk: (taskId) => plantJunkInFolder(dir.path, taskId),
    [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
  }
})

it('a directory store follows no link that a worker planted', async () => {
  await using dir = await makeTempDir()
  await using outside = await makeTempDir()
  const store = new SpoolStore('directory', 'directory', new DirectoryFiles(dir.path))
  const secret = recordFor({ taskId: 'elsewhere', name: 'secret' }, Buffer.from('secret'))
  await plantInFolder(outside.path, secret, Buffer.from('secret'))
  await symlink(join(outside.path, 'elsewhere'), join(dir.path, 'elsewhere'))
  expect(await store.describe(secret.key)).toBeUndefined()
  await expect(store.open(secret.key)).rejects.toMatchObject({ code: 'NOT_FOUND' })
  expect(await collect(store.list('elsewhere'))).toEqual([])

  const linked = recordFor({ taskId: 'w', name: 'linked' }, Buffer.from('secret'))
  await mkdir(join(dir.path, 'w'))
  await writeFile(join(outside.path, 'file'), 'secret')
  await symlink(join(outside.path, 'file'), join(dir.path, 'w', '20260114-120000-linked'))
  await writeFile(join(dir.path, 'w', '20260114-120000-linked.meta.json'), JSON.stringify(linked))
  await expect(store.open(linked.key)).rejects.toMatchObject({ code: 'NOT_FOUND' })
})

it('a directory store passes over sockets that a worker planted', async () => {
  await using dir = await makeTempDir()
  const store = new SpoolStore('directory', 'directory', new DirectoryFiles(dir.path))
  const whole = recordFor({ taskId: 'w', name: 'whole' }, Buffer.from('x'))
  await plantInFolder(dir.path, whole, Buffer.from('x'))
  const planted = recordFor({ taskId: 'w', name: 'planted' }, Buffer.from('x'))
  await writeFile(join(dir.path, planted.key), 'x')
  const server = createServer().listen(join(dir.path, `${planted.key}.meta.json`))
  try {
    await once(server, 'listening')
    expect((await collect(store.list('w'))).map(({ key }) => key)).toEqual([whole.key])
    expect(await store.describe(planted.key)).toBeUndefined()
  } finally {
    server.close()
  }
})
