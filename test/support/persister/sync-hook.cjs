// Loaded into a program before anything else: notes what it syncs, and fails one of those calls as a broken disk does.
const fs = require('node:fs')

const { TEST_SYNCS: log, TEST_FAIL_SYNC: failAt } = process.env
let count = 0

for (const name of ['fsync', 'fdatasync']) {
  const original = fs[name]
  fs[name] = (descriptor, done) => {
    count++
    fs.appendFileSync(log, `${fs.readlinkSync(`/proc/self/fd/${descriptor}`)}\n`)
    if (count !== Number(failAt)) return original(descriptor, done)
    setImmediate(done, Object.assign(new Error(`EIO: i/o error, ${name}`), { code: 'EIO', syscall: name }))
  }
}
