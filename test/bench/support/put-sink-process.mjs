// Writes each body to one and the same file, in a process of its own: the least that a server for uploads can do. What is put
// to /synced is on the disk before that is answered.
import { createWriteStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

const [, , folder = ''] = process.argv
const server = createServer((request, response) => {
  const path = join(folder, 'sunk')
  const take = async () => {
    await pipeline(request, createWriteStream(path))
    if (request.url !== '/synced') return
    const file = await open(path, 'r+')
    await file.sync()
    await file.close()
  }
  take().then(
    () => response.writeHead(201).end(),
    () => response.destroy(),
  )
})
server.requestTimeout = 0
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  process.send?.({ url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}` })
})
process.once('disconnect', () => {
  server.closeAllConnections()
  server.close()
})
