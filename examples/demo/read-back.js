import { createHash } from 'node:crypto'
import { Conductor } from 'stu-conductor'

/**
 * One result as somebody else found it.
 *
 * @typedef {object} Found
 * @property {string} key
 * @property {string} taskId
 * @property {readonly string[]} tiers
 * @property {number} sizeBytes
 * @property {string | null} sha256 Of the bytes that came; null when they did not.
 * @property {boolean} verified Whether they are what the worker's receipt says was stored.
 * @property {string} problem Why not; empty when all is well.
 * @property {import('stu-conductor').Result} result
 * @property {Uint8Array | undefined} bytes
 */

/**
 * Lists and fetches everything that these tasks left, with a conductor of its own that never saw their workers.
 *
 * @param {Readonly<Record<string, string | undefined>>} env
 * @param {readonly import('stu-conductor').Receipt[]} receipts
 * @param {AbortSignal} signal
 * @returns {Promise<readonly Found[]>}
 */
export async function readBack(env, receipts, signal) {
  const conductor = new Conductor({ env })
  try {
    const lists = await Promise.all(
      receipts.map(async (receipt) => {
        const results = await conductor.results(receipt.taskId).list({ strict: true, signal })
        return Promise.all(results.map((result) => fetchResult(result, receipt, signal)))
      }),
    )
    return lists.flat()
  } finally {
    await conductor.close()
  }
}

/**
 * @param {import('stu-conductor').Result} result
 * @param {import('stu-conductor').Receipt} receipt
 * @param {AbortSignal} signal
 * @returns {Promise<Found>}
 */
async function fetchResult(result, receipt, signal) {
  const { key, taskId, tiers, size: sizeBytes } = result
  const found = { key, taskId, tiers, sizeBytes, result }
  try {
    const bytes = await result.bytes({ signal })
    // The SDK has checked the digest that lies beside the result; the receipt is a second witness.
    const promised = receipt.results.find((delivered) => delivered.key === key)
    const sha256 = digest(bytes)
    const verified = promised?.sha256 === sha256 && promised.sizeBytes === bytes.length
    return { ...found, sha256, verified, problem: verified ? '' : 'is not what the receipt says', bytes }
  } catch (error) {
    signal.throwIfAborted()
    const problem = error instanceof Error ? error.message : String(error)
    return { ...found, sha256: null, verified: false, problem, bytes: undefined }
  }
}

/** @param {Uint8Array} bytes */
export function digest(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}
