// A results endpoint over a folder, in a process of its own, so that its memory can be told from that of the bench.
import { compiled } from './dist.mjs'

const { serveResults } = await import(compiled('endpoint/index.js'))
const server = await serveResults({ directory: process.argv[2], authenticate: 'none' })
process.send?.({ url: server.url })
process.once('disconnect', () => void server.close())
