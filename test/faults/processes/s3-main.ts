import { type LocalS3Credential, startLocalS3 } from '../../../src/local/index.js'

// A local S3 in a process of its own, over the folder and the bucket that are its arguments.
async function main(): Promise<void> {
  const [, , dataDir, bucket = ''] = process.argv
  const credential = JSON.parse(process.env.LAB_SECRET ?? '') as LocalS3Credential
  const s3 = await startLocalS3({ dataDir, buckets: [bucket], credentials: [credential] })
  process.send?.({ url: s3.url })
  process.once('disconnect', () => process.exit())
}

void main()
