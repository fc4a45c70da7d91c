// A results endpoint inside a Hono application, with the application's own check in place of tokens.
//
//   npm run build && node examples/endpoint/hono.js
//
// Everything that speaks Request and Response mounts it the same way; next-route.js does so in Next. Express and Fastify take
// `toNodeListener(handler)`, before anything that reads bodies: `app.use('/results', listener)` in Express; in Fastify, in a
// plugin of its own, `removeAllContentTypeParsers()`, `addContentTypeParser('*', (request, body, done) => done(null))`, and for
// `/results` and `/results/*` a route that calls `reply.hijack()` and `listener(request.raw, reply.raw)`.
import { timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { Hono } from 'hono'
import { createResultsHandler, DirectoryBackend, toNodeListener } from 'stu-conductor/endpoint'

const apiKey = Buffer.from(process.env.RESULTS_API_KEY ?? 'only for trying it out')

const results = createResultsHandler({
  backend: await DirectoryBackend.open(process.env.RESULTS_DIR ?? './results'),
  basePath: '/results',
  // Gets the request without its body; null is a 401.
  authenticate: async (request) => {
    const given = Buffer.from(request.headers.get('x-api-key') ?? '')
    const known = given.length === apiKey.length && timingSafeEqual(given, apiKey)
    return known ? { scopes: ['write', 'read'] } : null
  },
})

const app = new Hono()
app.get('/', (c) => c.text('results are at /results'))
app.all('/results', (c) => results(c.req.raw))
app.all('/results/*', (c) => results(c.req.raw))

// Any adapter will do; this one streams both ways and needs no further package.
const server = createServer(toNodeListener((request) => app.fetch(request)))
server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/results`)
})

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.close())
