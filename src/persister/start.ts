import { createHash } from 'node:crypto'
import { closeSync, openSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { Script } from 'node:vm'
import { systemCode } from '../files/system-code.js'

/*
 * Reading and compiling the program takes a fifth of what storing a small file does. So the bundle consists of these lines and of
 * the program in comments, which Node passes over; they compile it, and keep for the next call what V8 has made of it. V8 takes
 * what it is given on trust, so a digest of that and of all it depends on goes before it: whatever else lies there is not looked
 * at. Who can write that digest can write this file as well, since both lie in one folder.
 * https://nodejs.org/docs/latest-v20.x/api/vm.html#scriptcreatecacheddata
 */

/** Where the program begins in this file, in bytes; the bundler puts it in. */
declare const PROGRAM_AT: number

const DIGEST_BYTES = 32

const program = readFileSync(__filename).subarray(PROGRAM_AT)
if (!program.toString('latin1', 0, 20).startsWith('\n//(function')) {
  throw new Error('persist-result.js cannot be made part of another file; stu-conductor/persist-result can')
}
const path = `${dirname(__filename)}/.persist-result-${process.version}-${process.arch}.cache`

function digestOf(code: Uint8Array): Buffer {
  const { version, arch, platform, execPath } = process
  const engine = JSON.stringify([version, process.versions.v8, arch, platform, execPath])
  return createHash('sha256').update(engine).update(program).update(code).digest()
}

/** What an earlier call has kept; `undefined` unless it is exactly that, and of this program and this Node. */
function readCode(): Buffer | undefined {
  try {
    const kept = readFileSync(path)
    const code = kept.subarray(DIGEST_BYTES)
    return digestOf(code).equals(kept.subarray(0, DIGEST_BYTES)) ? code : undefined
  } catch {
    // Then it is compiled as it always is.
    return undefined
  }
}

const cachedData = readCode()
// With other flags V8 refuses what was kept without them, and compiles.
const source = program.toString('latin1').replaceAll('\n//', '\n')
const script = new Script(source, { filename: __filename, cachedData })

/**
 * Keeps what has been compiled so far, which takes milliseconds: the first call only marks the place, the second fills it. Where
 * nothing can be written, every call is like the first.
 */
function keepCode(): void {
  if (cachedData !== undefined) return
  try {
    closeSync(openSync(path, 'wx'))
    return
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') return
  }
  const temporary = `${path}.${process.pid}`
  try {
    const code = script.createCachedData()
    writeFileSync(temporary, Buffer.concat([digestOf(code), code]), { flag: 'wx' })
    renameSync(temporary, path)
  } catch {
    try {
      unlinkSync(temporary)
    } catch {
      // Nothing was written.
    }
  }
}

script.runInThisContext()(exports, require, module, __filename, __dirname, keepCode)
