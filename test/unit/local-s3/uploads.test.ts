import { mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { type UploadPlan, Uploads } from '../../../src/local/s3/store/uploads.js'

it('a part is refused as one of no upload when that is given up while the part is put in its place', async (test) => {
  const folder = await mkdtemp(join(tmpdir(), 's3-uploads-'))
  test.onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const uploads = await Uploads.open(join(folder, 'uploads'), folder)
  const id = await uploads.create({ key: 'k', initiatedMs: 0 } as UploadPlan)
  const writer = await uploads.stage()
  // As when the folder is removed between being made and being used.
  writer.publish = async (path) => {
    await uploads.remove(id)
    await rename(folder, path)
  }
  const part = { partNumber: 1 } as Parameters<Uploads['commitPart']>[2]
  await expect(uploads.commitPart(id, writer, part)).rejects.toMatchObject({ code: 'NoSuchUpload' })
})
