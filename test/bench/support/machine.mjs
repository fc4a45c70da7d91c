import { availableParallelism, cpus, totalmem } from 'node:os'

/** What the numbers were measured on. */
export function describeMachine() {
  return {
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    memoryMB: Math.round(totalmem() / 1e6),
  }
}
