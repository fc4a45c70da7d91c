import { randomBytes } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { missingTime, peakMemory, timeCommand } from '../support/command.mjs'
import { BUNDLE, compiled } from '../support/dist.mjs'
import { startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { Conductor, generateEncryptionKeys } = await import(compiled('index.js'))

const SIZE_MIB = 256
const ROUNDS = 5

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'persist-result to S3 and result.save() of 256 MB, encrypted : in clear',
  missing: missingTime,
  run: () =>
    withScratch(async (folder) => {
      const file = join(folder, 'big.bin')
      await writeRandom(file, SIZE_MIB)
      const s3 = await startS3()
      try {
        return await measure(s3, folder, file)
      } finally {
        await s3.close()
      }
    }),
}

/**
 * @param {import('../support/s3.mjs').BenchS3} s3
 * @param {string} folder
 * @param {string} file
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure(s3, folder, file) {
  const { publicKey, privateKey } = generateEncryptionKeys()
  const spool = join(folder, 'spool')
  /** @type {[string, ...string[]]} */
  const words = [process.execPath, BUNDLE, '--quiet', file]
  const clearEnv = { WORKER_RESULTS_LOCAL_DIR: spool, WORKER_ID: 'clear', TMPDIR: folder, ...s3.env }
  const sealedEnv = { ...clearEnv, WORKER_ID: 'sealed', WORKER_RESULTS_ENCRYPTION_KEY: publicKey }
  const timed = async (/** @type {Record<string, string>} */ env) => {
    const ms = await timeCommand(words, env)
    await rm(spool, { recursive: true, force: true })
    return ms
  }
  const stored = await sideBySide(ROUNDS, { clear: () => timed(clearEnv), sealed: () => timed(sealedEnv) })
  const megabytes = await peakMemory(words, sealedEnv, join(folder, 'peak'))

  const conductor = new Conductor({ env: s3.env, encryption: { privateKeys: [privateKey] } })
  const save = async (/** @type {string} */ taskId) => {
    const result = await conductor.results(taskId).latest()
    const started = performance.now()
    await result.save(join(folder, 'saved'))
    return performance.now() - started
  }
  const saved = await sideBySide(ROUNDS, { clear: () => save('clear'), sealed: () => save('sealed') })
  await conductor.close()
  return [
    {
      name: ', store',
      value: stored.sealed.medianMs / stored.clear.medianMs,
      bound: 2,
      unit: 'x',
      detail: `${formatTimes(stored.sealed)} : ${formatTimes(stored.clear)}`,
    },
    {
      name: ', store, memory',
      value: megabytes,
      bound: 128,
      unit: 'MB',
      detail: 'of the encrypted one',
    },
    {
      name: ', save',
      value: saved.sealed.medianMs / saved.clear.medianMs,
      bound: 2,
      unit: 'x',
      detail: `${formatTimes(saved.sealed)} : ${formatTimes(saved.clear)}`,
    },
  ]
}

/** @param {string} path @param {number} mebibytes */
async function writeRandom(path, mebibytes) {
  const file = await open(path, 'w')
  try {
    for (let i = 0; i < mebibytes; i += 1) await file.write(randomBytes(1 << 20))
    await file.sync()
  } finally {
    await file.close()
  }
}
