import { fork } from 'node:child_process'
import { once } from 'node:events'
import { S3Client } from '@aws-sdk/client-s3'

/**
 * A local S3 server in a process of its own.
 *
 * @typedef {object} BenchS3
 * @property {string} url
 * @property {string} bucket
 * @property {string} region
 * @property {{ accessKeyId: string, secretAccessKey: string }} credentials
 * @property {Readonly<Record<string, string>>} env What the AWS tools and the persister need, the bucket included.
 * @property {() => Promise<void>} close
 */

/** @returns {Promise<BenchS3>} */
export async function startS3() {
  const child = fork(new URL('s3-process.mjs', import.meta.url))
  const exited = once(child, 'exit')
  const [ready] = await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => Promise.reject(new Error(`the S3 server ended with ${code}`))),
  ])
  const { url, env, region, credentials } = ready
  const close = async () => {
    child.disconnect()
    await exited
  }
  return {
    url,
    region,
    credentials,
    bucket: 'bench',
    env: { ...env, WORKER_RESULTS_S3_BUCKET: 'bench' },
    close,
  }
}

/**
 * A bare client with the settings that the SDK's own has.
 *
 * @param {BenchS3} s3
 */
export function connect({ url, region, credentials }) {
  return new S3Client({
    endpoint: url,
    region,
    credentials,
    forcePathStyle: true,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
}
