// A local stack in a process of its own, so that what is measured does not share a thread with it.
import { compiled } from './dist.mjs'

const { startLocalStack } = await import(compiled('local/stack.js'))
const stack = await startLocalStack()
process.send?.({ env: stack.env, e2bUrl: stack.e2b.url, s3Url: stack.s3.url, bucket: stack.bucket })
process.once('disconnect', () => void stack.close())
