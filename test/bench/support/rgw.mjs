import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { CreateBucketCommand } from '@aws-sdk/client-s3'
import { build } from 'esbuild'
import { connect } from './s3.mjs'

const sources = new URL('../../support/s3/', import.meta.url)

/**
 * Ceph RGW as the tests start it; undefined where the machine has none.
 *
 * @param {string} folder For its starter, which plain Node cannot read as it is written.
 * @returns {Promise<import('./s3.mjs').BenchS3 | undefined>}
 */
export async function startRgw(folder) {
  const { findRgw } = await load(folder, 'find-rgw')
  if (findRgw() === undefined) return undefined
  const rgw = await (await load(folder, 'rgw')).startRgw()
  const { url, region, credentials } = rgw.access
  const env = {
    AWS_ENDPOINT_URL_S3: url,
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    WORKER_RESULTS_S3_BUCKET: 'bench',
  }
  const s3 = { url, region, credentials, bucket: 'bench', env, close: () => rgw.close() }
  const client = connect(s3)
  try {
    await client.send(new CreateBucketCommand({ Bucket: 'bench' }))
    return s3
  } catch (error) {
    await rgw.close()
    throw error
  } finally {
    client.destroy()
  }
}

/** @param {string} folder @param {string} name */
async function load(folder, name) {
  const outfile = join(folder, `${name}.mjs`)
  const source = new URL(`${name}.ts`, sources)
  await build({
    entryPoints: [fileURLToPath(source)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    // What lies beside the source is looked for from there.
    define: { 'import.meta.url': JSON.stringify(source.href) },
  })
  return import(pathToFileURL(outfile).href)
}
