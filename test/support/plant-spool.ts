import { mkdir, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ResultRecord } from '../../src/protocol/record.js'
import { spoolFileName } from '../../src/protocol/spool-layout.js'
import { recordFor } from './records.js'

/** Writes a result into a spool folder of this machine, as a persister leaves it. */
export async function plantInFolder(folder: string, record: ResultRecord, body: Uint8Array): Promise<void> {
  const path = join(folder, record.task_id, spoolFileName(record.timestamp, record.name))
  await mkdir(join(folder, record.task_id), { recursive: true })
  await writeFile(path, body)
  await writeFile(`${path}.meta.json`, `${JSON.stringify(record)}\n`)
}

/** Writes things into a task's folder that no listing may take for results. */
export async function plantJunkInFolder(folder: string, taskId: string): Promise<void> {
  const dir = join(folder, taskId)
  const at = '20260114-120000'
  await mkdir(dir, { recursive: true })
  const stray = recordFor({ taskId, name: 'stray' }, Buffer.from('x'))
  const foreign = recordFor({ taskId: 'another', name: 'foreign' }, Buffer.from('x'))
  await writeFile(join(dir, `${at}-claimed`), '')
  await writeFile(join(dir, '.tmp-1'), 'half')
  await writeFile(join(dir, `${at}-broken.meta.json`), '{"v":1,')
  await writeFile(join(dir, `${at}-wrong.meta.json`), '{"v":1,"size":"many"}\n')
  await writeFile(join(dir, `${at}-elsewhere.meta.json`), `${JSON.stringify(stray)}\n`)
  await writeFile(join(dir, `${at}-foreign.meta.json`), `${JSON.stringify(foreign)}\n`)
  await writeFile(join(dir, `${at}-huge.meta.json`), Buffer.alloc(5_000_000, 0x20))
  await symlink('/etc/passwd', join(dir, `${at}-link.meta.json`))
  await mkdir(join(dir, `${at}-folder.meta.json`))
}

/** Blows up a record with spaces that nobody needs to store. */
export async function inflateInFolder(
  folder: string,
  record: ResultRecord,
  sizeBytes: number,
): Promise<void> {
  const path = join(folder, record.task_id, `${spoolFileName(record.timestamp, record.name)}.meta.json`)
  await truncate(path, sizeBytes)
}
