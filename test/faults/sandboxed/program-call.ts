import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import type { AcknowledgedResult } from '../messages.js'
import type { CallEnd, PersistCall, RunningCall } from './call.js'

/** Calls `persist-result` as a command, in a process group of its own. */
export function callProgram(bin: string, call: PersistCall): RunningCall {
  const program =
    call.via === 'node' ? ['node', `${bin}/persist-result.js`] : ['sh', `${bin}/persist-result.sh`]
  let metadata = JSON.stringify(call.metadata)
  if (metadata.length > 2_000) {
    const file = `/tmp/metadata-${process.pid}.json`
    writeFileSync(file, metadata)
    metadata = `@${file}`
  }
  const [file = '', ...args] = [
    ...program,
    ...['--json', '--quiet', '--name', call.name, '--metadata', metadata],
    ...(call.requireRemote ? ['--require', 'remote'] : []),
    '--',
    call.path,
  ]
  const child = spawn(file, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] })
  child.stdin.on('error', () => {
    // It was killed, or refused before it read everything; its end says which.
  })
  child.stdin.end(call.input)
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  const end = new Promise<CallEnd>((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => {
      const said = Buffer.concat(stderr).toString().trim().slice(-500)
      if (code === 0) done({ status: 'acknowledged', result: resultOf(Buffer.concat(stdout).toString()) })
      else if (signal !== null) done({ status: 'died', said: `ended with ${signal}: ${said}` })
      else done({ status: 'refused', said: `status ${code}: ${said}` })
    })
  })
  const gone = end.then(() => {})
  return { pid: child.pid ?? 0, end, gone }
}

/** Takes a record for what it says; an acknowledgment that cannot be read is a defect, and thrown. */
function resultOf(stdout: string): AcknowledgedResult {
  const { key, sha256, size, stored } = JSON.parse(stdout) as AcknowledgedResult
  return { key, sha256, size, stored: stored.map(({ tier }) => ({ tier })) }
}
