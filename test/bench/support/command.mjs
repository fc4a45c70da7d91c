import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * Runs a command to its end and gives back how long it took, in milliseconds. Throws unless it succeeds.
 *
 * @param {readonly [string, ...string[]]} words
 * @param {Readonly<Record<string, string>>} [env] Added to what every command needs; nothing else is inherited.
 */
export async function timeCommand([file, ...args], env = {}) {
  const { PATH = '/usr/bin:/bin', HOME = '/', TMPDIR = '/tmp' } = process.env
  const started = performance.now()
  const child = spawn(file, args, {
    env: { PATH, HOME, TMPDIR, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const [said, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])
  const ms = performance.now() - started
  if (code !== 0) throw new Error(`${file} ended with ${code}: ${said.trim()}`)
  return ms
}

/** Why peak memory cannot be measured here; undefined when it can. */
export async function missingTime() {
  return (await find('/usr/bin/time')) === undefined
    ? "/usr/bin/time is not installed (Debian's package time)"
    : undefined
}

/**
 * Peak memory of a command in megabytes: the largest resident set of any one of its processes.
 *
 * @param {readonly [string, ...string[]]} words
 * @param {Readonly<Record<string, string>>} env
 * @param {string} scratchFile Overwritten.
 */
export async function peakMemory(words, env, scratchFile) {
  // GNU time is small itself: a large parent would lend the child its own peak.
  await timeCommand(['/usr/bin/time', '-q', '-f', '%M', '-o', scratchFile, ...words], env)
  return (Number(await readFile(scratchFile, 'utf8')) * 1024) / 1e6
}

/**
 * Where a command lies; undefined when there is none.
 *
 * @param {string} name
 */
export async function find(name) {
  const path = await ask('/bin/sh', ['-c', 'command -v -- "$1"', 'find', name])
  // A shim of pyenv's costs more than the program behind it.
  return path?.includes('/.pyenv/shims/') ? ((await ask('pyenv', ['which', name])) ?? path) : path
}

/** @param {string} file @param {readonly string[]} args */
async function ask(file, args) {
  try {
    return (await run(file, args)).stdout.trim()
  } catch {
    // Whatever keeps it from answering, the command is not to be had.
    return undefined
  }
}
