// A results endpoint on plain node:http, with tokens, in a folder of this machine.
//
//   npm run build && node examples/endpoint/node-http.js
//
// RESULTS_SECRET signs the tokens (at least 32 bytes), RESULTS_DIR keeps the results, PORT is where to listen.
import { randomBytes } from 'node:crypto'
import { mintToken, serveResults } from 'stu-conductor/endpoint'

const secret = process.env.RESULTS_SECRET ?? randomBytes(32).toString('hex')

const server = await serveResults({
  directory: process.env.RESULTS_DIR ?? './results',
  port: Number(process.env.PORT ?? 8080),
  basePath: '/results',
  // To rotate the secret, put the new one first and take the old one away once its tokens have expired.
  tokenSecrets: [secret],
  limits: { maxFileBytes: 1024 ** 3, maxTaskResults: 10_000 },
})

// What a worker gets, and what reads its results back.
const token = mintToken({
  secret,
  taskId: 'worker-123',
  scope: ['write', 'read'],
  expiresAt: new Date(Date.now() + 3600_000),
})

console.log(`export WORKER_RESULTS_ENDPOINT=${server.url}`)
console.log(`export WORKER_RESULTS_TOKEN=${token}`)
console.log(
  `# curl -H "authorization: Bearer $WORKER_RESULTS_TOKEN" -F file=@test.txt -F key=test -F task_id=worker-123 $WORKER_RESULTS_ENDPOINT`,
)

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.close())
