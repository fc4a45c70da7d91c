// A results endpoint inside a Next application: this file as `app/results/[[...path]]/route.js`. The same functions serve any
// framework whose routes take a Request and give a Response.
//
// RESULTS_SECRET signs the tokens (at least 32 bytes), RESULTS_DIR keeps the results.
import { createResultsHandler, DirectoryBackend } from 'stu-conductor/endpoint'

const handler = createResultsHandler({
  backend: await DirectoryBackend.open(process.env.RESULTS_DIR ?? './results'),
  basePath: '/results',
  tokenSecrets: [process.env.RESULTS_SECRET],
})

// Uploads need Node's own runtime, and answers are not to be kept.
export const runtime = 'nodejs'
export const dynamic = 'force-dynamic'
export { handler as DELETE, handler as GET, handler as HEAD, handler as POST }
