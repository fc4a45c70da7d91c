import { statfsSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { RequestError } from '../request-error.js'

/** File system types whose "files" are the kernel's own switches and memory, by their magic numbers in statfs(2). */
const KERNEL_FILE_SYSTEMS = new Set([
  0x9fa0, // proc
  0x62656572, // sysfs
  0x27e0eb, // cgroup
  0x63677270, // cgroup2
  0x64626720, // debugfs
  0x74726163, // tracefs
  0x73636673, // securityfs
  0xcafe4a11, // bpf
])

/**
 * Refuses an opened file that is the kernel's. A sandbox can plant a link to one, and the server, which may run as root, would use it
 * with rights the sandbox does not have.
 */
export function refuseKernelFile(handle: FileHandle, path: string): void {
  if (process.platform !== 'linux') return
  const { type } = statfsSync(`/proc/self/fd/${handle.fd}`)
  if (KERNEL_FILE_SYSTEMS.has(type)) {
    throw new RequestError('permission_denied', `'${path}' belongs to the kernel: reach it with a command`)
  }
}
