import { startLocalE2b } from '../../../src/local/index.js'

// A local E2B in a process of its own, over the folder that is its argument.
async function main(): Promise<void> {
  const e2b = await startLocalE2b({ dataDir: process.argv[2] })
  process.send?.({ url: e2b.url, env: e2b.env })
  process.once('disconnect', () => {
    void e2b.close().then(() => process.exit())
  })
}

void main()
