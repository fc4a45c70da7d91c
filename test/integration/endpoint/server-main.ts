import { serveResults } from '../../../src/endpoint/index.js'

// The program that the tests start and kill: serves the folder it is given and says where.
async function main(): Promise<void> {
  const { url } = await serveResults({ directory: process.argv[2] ?? '', authenticate: 'none' })
  process.stdout.write(`${url}\n`)
}

void main()
