import { serveResults } from '../../../src/endpoint/index.js'

// A results endpoint in a process of its own, over the folder that is its argument.
async function main(): Promise<void> {
  const [, , directory] = process.argv
  const server = await serveResults({ directory, tokenSecrets: [process.env.LAB_SECRET ?? ''] })
  process.send?.({ url: server.url })
  process.once('disconnect', () => process.exit())
}

void main()
