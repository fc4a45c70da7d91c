// A local S3 server of its own process, so that what is measured does not share a thread with it.
import { compiled } from './dist.mjs'

const { startLocalS3 } = await import(compiled('local/s3/index.js'))
const server = await startLocalS3({ buckets: ['bench'] })
process.send?.({ url: server.url, env: server.env, region: server.region, credentials: server.credentials })
process.once('disconnect', () => void server.close())
