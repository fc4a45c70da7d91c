import fs from 'node:fs'
import { Socket } from 'node:net'

// Loaded into a process before anything else: counts its steps towards disk and network, and kills it at the one it is told.
// A write at which it is killed is done by half before.

/** What the process under test may know of the count. */
export interface Steps {
  /** Nothing is counted until this is true. */
  armed: boolean
  count: number
}

const killAt = Number(process.env.LAB_KILL_AT ?? 0)
const countFile = process.env.LAB_COUNT_FILE
const steps: Steps = { armed: process.env.LAB_ARM_LATER === undefined, count: 0 }
Object.assign(globalThis, { labSteps: steps })

// Taken before they are replaced.
const { writeFileSync, writeSync } = fs

function die(): never {
  process.kill(process.pid, 'SIGKILL')
  // The signal arrives before this returns, but nothing says so.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000)
}

/** Whether this is the step to die at. */
function isLast(): boolean {
  if (!steps.armed) return false
  steps.count++
  return steps.count === killAt
}

type Callable = (this: unknown, ...args: unknown[]) => unknown

function count(owner: Record<string, unknown>, name: string): void {
  const original = owner[name]
  if (typeof original !== 'function') return
  const replacement = function (this: unknown, ...args: unknown[]): unknown {
    if (isLast()) {
      if ((name === 'write' || name === 'writeSync') && args[1] instanceof Uint8Array) writeHalf(args)
      die()
    }
    return (original as Callable).apply(this, args)
  }
  owner[name] = Object.assign(replacement, original)
}

/** `write(descriptor, buffer, offset, length, position)` and its blocking twin. */
function writeHalf([descriptor, buffer, offset, length, position]: unknown[]): void {
  const size = typeof length === 'number' ? length : (buffer as Uint8Array).length
  const at = typeof offset === 'number' ? offset : 0
  const where = typeof position === 'number' ? position : null
  writeSync(descriptor as number, buffer as Uint8Array, at, Math.floor(size / 2), where)
}

const touched = [
  'open',
  'close',
  'read',
  'write',
  'rename',
  'link',
  'unlink',
  'mkdir',
  'mkdtemp',
  'readFile',
  'writeFile',
]
const further = [
  'readdir',
  'fsync',
  'fdatasync',
  'ftruncate',
  'utimes',
  'stat',
  'fstat',
  'rm',
  'readlink',
  'symlink',
]
const owners = fs as unknown as Record<string, unknown>
const promises = fs.promises as unknown as Record<string, unknown>
for (const name of [...touched, ...further]) {
  count(owners, name)
  count(owners, `${name}Sync`)
  count(promises, name)
}

type GenericWrite = (this: Socket, writev: boolean, data: unknown, encoding: string, done: () => void) => void
const sockets = Socket.prototype as unknown as {
  _writeGeneric: GenericWrite
  connect: Callable
  push: Callable
}
const { _writeGeneric: writeGeneric, connect, push } = sockets
sockets._writeGeneric = function (writev, data, encoding, done) {
  if (!isLast()) return writeGeneric.call(this, writev, data, encoding, done)
  if (!(data instanceof Uint8Array)) die()
  writeGeneric.call(this, false, data.subarray(0, Math.floor(data.length / 2)), encoding, die)
}
sockets.connect = function (...args) {
  if (isLast()) die()
  return connect.apply(this, args)
}
// What was received is on its way to whoever reads.
sockets.push = function (...args) {
  if (isLast()) die()
  return push.apply(this, args)
}

if (countFile !== undefined) process.on('exit', () => writeFileSync(countFile, String(steps.count)))
