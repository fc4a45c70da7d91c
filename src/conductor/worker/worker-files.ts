import { WORKER_FILES, workerFolder } from '../../protocol/spool-layout.js'
import type { WorkerRecord } from '../../protocol/worker-record.js'
import type { SandboxFile } from '../../sandbox/remote-sandbox.js'

/** The file by which another conductor can go on with a worker. */
export function workerFile(record: WorkerRecord, localDir: string): SandboxFile {
  return {
    path: `${workerFolder(localDir, record.task_id)}/${WORKER_FILES.worker}`,
    data: JSON.stringify(record),
  }
}

/** The same when the worker is made; to be written after all other files. */
export function workerFiles(record: WorkerRecord, localDir: string): readonly SandboxFile[] {
  const born = `${workerFolder(localDir, record.task_id)}/${WORKER_FILES.born}`
  return [workerFile(record, localDir), { path: born, data: '' }]
}
