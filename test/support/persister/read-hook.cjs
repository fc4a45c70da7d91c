// Loaded into a program before anything else: makes a file system of one that fails a call, or that tells no types with names.
const fs = require('node:fs')
const { join } = require('node:path')

const { TEST_NO_TYPES: noTypes, TEST_FAIL: failing = '' } = process.env
/** Which call fails, on which name, how, and for reads from which position on. */
const [call, name, code, position = '0'] = failing.split(' ')

if (call !== '') {
  const original = fs[call]
  fs[call] = (file, ...args) => {
    const path = typeof file === 'number' ? fs.readlinkSync(`/proc/self/fd/${file}`) : String(file)
    const from = typeof args[3] === 'number' ? args[3] : 0
    if (!path.endsWith(`/${name}`) || from < Number(position)) return original(file, ...args)
    const error = Object.assign(new Error(`${code}: made up, ${call}`), { code, syscall: call })
    const done = args.at(-1)
    if (typeof done !== 'function') throw error
    setImmediate(done, error)
  }
}

if (noTypes !== undefined) {
  const { readSync } = fs.Dir.prototype
  fs.Dir.prototype.readSync = function () {
    const found = readSync.call(this)
    if (found === null) return null
    // What Node itself does then.
    if (typeof this.path === 'string') {
      return Object.assign(fs.lstatSync(join(this.path, found.name)), { name: found.name })
    }
    const message = 'The "path" argument must be of type string or an instance of Uint8Array'
    throw Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_TYPE' })
  }
}
