import { arrayBuffer } from 'node:stream/consumers'
import { Sandbox, Volume } from 'e2b'
import { pack } from 'tar-stream'
import { expect } from 'vitest'
import { type LocalE2b, startLocalE2b } from '../../../src/local/e2b/index.js'
import type { ResultRecord } from '../../../src/protocol/record.js'
import { spoolFileName } from '../../../src/protocol/spool-layout.js'
import { E2bSandbox } from '../../../src/sandbox/e2b-sandbox.js'
import { E2bSandboxes } from '../../../src/sandbox/e2b-sandboxes.js'
import { E2bVolumeFiles } from '../../../src/sandbox/e2b-volume.js'
import { FoundSandboxStore } from '../../../src/sandbox/found-sandbox-store.js'
import { quote } from '../../../src/sandbox/quote.js'
import { SandboxFiles } from '../../../src/sandbox/sandbox-files.js'
import { SandboxVisits } from '../../../src/sandbox/sandbox-visits.js'
import type { ResultStore } from '../../../src/stores/result-store.js'
import { SpoolStore } from '../../../src/stores/spool-store.js'
import { thorough } from '../../support/thorough.js'
import { describeResultStore, type StoreHarness } from './result-store.js'

const SPOOL = '/workspace/.results'

const METADATA = { task: 'read from elsewhere' }

interface Place extends AsyncDisposable {
  readonly e2b: LocalE2b
  readonly sandbox: Sandbox
  readonly connection: { readonly apiKey: string; readonly apiUrl: string; readonly sandboxUrl: string }
}

/** A sandbox with a volume on its spool, or without. */
async function startSandbox(volume: string | undefined): Promise<Place> {
  const e2b = await startLocalE2b()
  try {
    const connection = { apiKey: e2b.env.E2B_API_KEY ?? '', apiUrl: e2b.url, sandboxUrl: e2b.url }
    if (volume !== undefined) await Volume.create(volume, connection)
    const mounts = volume === undefined ? {} : { volumeMounts: { [SPOOL]: volume } }
    const metadata = METADATA
    const sandbox = await Sandbox.create({ ...connection, ...mounts, metadata, timeoutMs: 600_000 })
    return { e2b, sandbox, connection, [Symbol.asyncDispose]: () => e2b.close() }
  } catch (error) {
    await e2b.close()
    throw error
  }
}

/** Plants through the unmodified SDK, in one archive: a request for each of a thousand files would take most of the time. */
function seeder(sandbox: Sandbox): Pick<StoreHarness, 'seed' | 'forge' | 'inflateRecord' | 'seedJunk'> {
  const seed: StoreHarness['seed'] = async (results) => {
    const archive = pack()
    for (const { record, body } of results) {
      archive.entry({ name: pathOf(record) }, Buffer.from(body))
      archive.entry({ name: `${pathOf(record)}.meta.json` }, `${JSON.stringify(record)}\n`)
    }
    archive.finalize()
    await sandbox.files.write('/tmp/seed.tar', await arrayBuffer(archive))
    await sandbox.commands.run(`mkdir -p ${SPOOL} && tar -C ${SPOOL} -xf /tmp/seed.tar`)
  }
  return {
    seed,
    forge: seed,
    inflateRecord: async (record, sizeBytes) => {
      await sandbox.commands.run(`truncate -s ${sizeBytes} ${quote(`${SPOOL}/${pathOf(record)}.meta.json`)}`)
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
  return `${task_id}/${spoolFileName(timestamp, name)}`
}

describeResultStore('live sandbox', async () => {
  const place = await startSandbox(undefined)
  const { sandbox } = place
  return {
    store: new SpoolStore('sandbox', 'sandbox', new SandboxFiles(new E2bSandbox(sandbox), SPOOL)),
    ...seeder(sandbox),
    listsInPages: false,
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
    listsInPages: false,
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
})

/** Finds the sandbox as a process does that has never heard of it. */
function findFrom({ connection }: Place, resumes: boolean): { store: ResultStore; visits: SandboxVisits } {
  const sandboxes = new E2bSandboxes(connection)
  const visits = new SandboxVisits(connection, { lingerMs: 0 })
  const store = new FoundSandboxStore({
    taskId: 'any',
    localDir: SPOOL,
    find: (options) => sandboxes.list(METADATA, options),
    visits,
    resumes,
    after: 'pause',
    others: [],
  })
  return { store, visits }
}

// As the paused one below, which has to be woken besides.
if (thorough) {
  describeResultStore('running sandbox of another process', async () => {
    const place = await startSandbox(undefined)
    const { store, visits } = findFrom(place, false)
    return {
      store,
      ...seeder(place.sandbox),
      listsInPages: false,
      [Symbol.asyncDispose]: async () => {
        await visits.close()
        await place[Symbol.asyncDispose]()
      },
    }
  })
}

// Asleep before each call that reads it, and again after it.
describeResultStore('paused sandbox', async () => {
  const place = await startSandbox(undefined)
  const { sandbox } = place
  const { store, visits } = findFrom(place, true)
  const { seed, inflateRecord, seedJunk } = seeder(sandbox)
  const whileAwake = async (work: () => Promise<void>): Promise<void> => {
    await visits.close()
    await sandbox.connect({ timeoutMs: 600_000 })
    await work()
    await sandbox.pause()
  }
  return {
    store,
    seed: (results) => whileAwake(() => seed(results)),
    forge: (results) => whileAwake(() => seed(results)),
    inflateRecord: (record, sizeBytes) => whileAwake(() => inflateRecord(record, sizeBytes)),
    seedJunk: (taskId) => whileAwake(() => seedJunk(taskId)),
    listsInPages: false,
    [Symbol.asyncDispose]: async () => {
      await visits.close()
      const { state } = await sandbox.getInfo()
      await place[Symbol.asyncDispose]()
      expect(state).toBe('paused')
    },
  }
})
