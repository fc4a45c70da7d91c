// Takes whatever is sent to it, in a process of its own, and keeps nothing.
import { createServer } from 'node:http'

const server = createServer((request, response) => {
  request.on('end', () => response.writeHead(201).end()).resume()
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  process.send?.({ url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/results` })
})
process.once('disconnect', () => {
  server.closeAllConnections()
  server.close()
})
