import { Sandbox, Volume } from 'e2b'
import { type LocalE2b, startLocalE2b } from '../../../src/local/e2b/index.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { spoolFileName } from '../../../src/protocol/spool-layout.js'
import { E2bSandbox } from '../../../src/sandbox/e2b-sandbox.js'
import { E2bVolumeFiles } from '../../../src/sandbox/e2b-volume.js'
import { quote } from '../../../src/sandbox/quote.js'
import { SandboxFiles } from '../../../src/sandbox/sandbox-files.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { describeResultStore, type StoreHarness } from './result-store.js'

const SPOOL = '/workspace/.results'

interface Place extends AsyncDisposable {
  readonly e2b: LocalE2b
  readonly sandbox: Sandbox
}

/** A sandbox with a volume on its spool, or without. */
async function startSandbox(volume: string | undefined): Promise<Place> {
  const e2b = await startLocalE2b()
  try {
    const connection = { apiKey: e2b.env.E2B_API_KEY ?? '', apiUrl: e2b.url, sandboxUrl: e2b.url }
    if (volume !== undefined) await Volume.create(volume, connection)
    const mounts = volume === undefined ? {} : { volumeMounts: { [SPOOL]: volume } }
    const sandbox = await Sandbox.create({ ...connection, ...mounts, timeoutMs: 600_000 })
    return { e2b, sandbox, [Symbol.asyncDispose]: () => e2b.close() }
  } catch (error) {
    await e2b.close()
    throw error
  }
}

/** Plants through the unmodified SDK, as a worker's own writes would lie there. */
function seeder(sandbox: Sandbox): Pick<StoreHarness, 'seed' | 'seedJunk'> {
  return {
    seed: async (results) => {
      await sandbox.files.write(
        results.flatMap(({ record, body }) => [
          { path: uploadPath(record), data: new Uint8Array(body).buffer },
          { path: `${uploadPath(record)}.meta.json`, data: `${JSON.stringify(record)}\n` },
        ]),
      )
      for (const { record } of results) {
        const [from, to] = [uploadPath(record), pathOf(record)]
        if (from !== to)
          await sandbox.commands.run(`for e in '' .meta.json; do mv ${from}$e ${quote(to)}$e; done`)
      }
    },
    seedJunk: async (taskId) => {
      await sandbox.commands.run(`cd ${SPOOL}/${taskId}
        : > 20260114-120000-claimed; echo half > .tmp-1
        echo '{"v":1,' > 20260114-120000-broken.meta.json
        echo '{"v":1,"size":"many"}' > 20260114-120000-wrong.meta.json
        cp *-real.meta.json 20260114-120000-elsewhere.meta.json
        head -c 5000000 /dev/zero | tr '\\0' ' ' > 20260114-120000-huge.meta.json
        printf 'two\\nlines\\n' > 20260114-120000-lines.meta.json
        ln -s /etc/passwd 20260114-120000-link.meta.json; mkdir 20260114-120000-folder.meta.json
        mkfifo 20260114-120000-fifo.meta.json`)
    },
  }
}

function pathOf({ task_id, timestamp, name }: ResultRecord): string {
  return `${SPOOL}/${task_id}/${spoolFileName(timestamp, name)}`
}

/** The SDK sends paths as multipart file names, where a quote turns into %22: such names are moved into place afterwards. */
function uploadPath(record: ResultRecord): string {
  return record.name.includes('"') ? `${SPOOL}/${record.task_id}/.upload` : pathOf(record)
}

describeResultStore('live sandbox', async () => {
  const place = await startSandbox(undefined)
  const { sandbox } = place
  return {
    store: new SpoolStore('sandbox', 'sandbox', new SandboxFiles(new E2bSandbox(sandbox), SPOOL)),
    ...seeder(sandbox),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
})

describeResultStore('volume', async () => {
  const place = await startSandbox('results')
  const { e2b, sandbox } = place
  const options = { apiKey: e2b.env.E2B_API_KEY, apiUrl: e2b.url, volumeApiUrl: e2b.url }
  return {
    store: new SpoolStore('volume', 'volume', new E2bVolumeFiles('results', options)),
    ...seeder(sandbox),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
})
