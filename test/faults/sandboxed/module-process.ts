import { createReadStream, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type * as Persister from '../../../src/persister/persist-result.js'
import type { CallEnd, PersistCall } from './call.js'

/** Serves calls through the module, which a sandbox finds by its `NODE_PATH`. */
export function serveModuleCalls(): void {
  const { persistResult } = createRequire('/workspace/')('persist-result.js') as typeof Persister
  const serve = async (call: PersistCall): Promise<CallEnd> => {
    const stdin = `/tmp/stdin-${process.pid}`
    try {
      let input: string | ReturnType<typeof createReadStream> = call.path
      if (call.input !== undefined) {
        writeFileSync(stdin, call.input)
        input = createReadStream(stdin)
      }
      const record = await persistResult(input, {
        name: call.name,
        metadata: call.metadata,
        warn: () => {},
        ...(call.requireRemote ? { require: 'remote' } : {}),
      })
      const { key, sha256, size, stored } = record
      return {
        status: 'acknowledged',
        result: { key, sha256, size, stored: stored.map(({ tier }) => ({ tier })) },
      }
    } catch (error) {
      return { status: 'refused', said: String(error).slice(0, 500) }
    } finally {
      rmSync(stdin, { force: true })
    }
  }
  process.on('message', (call: PersistCall) => {
    void serve(call).then((answer) => process.send?.(answer))
  })
}
