import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { open, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { DeleteObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { find, missingTime, timeCommand } from '../support/command.mjs'
import { compiled } from '../support/dist.mjs'
import { forEachPersister, storeToS3 } from '../support/persisters.mjs'
import { connect, startS3 } from '../support/s3.mjs'
import { withScratch } from '../support/scratch.mjs'
import { formatTimes, sideBySide } from '../support/side-by-side.mjs'

const { Granter } = await import(compiled('grants/granter.js'))
const { openS3Location } = await import(compiled('stores/s3/s3-location.js'))
const { toNodeListener } = await import(compiled('endpoint/index.js'))

const SIZE_MIB = 1024
const ROUNDS = 3

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'persist-result of 1 GB through what a conductor signs : the same with keys : aws s3 cp',
  missing: async () => missingTime(),
  run: () =>
    withScratch(async (folder) => {
      const file = join(folder, 'big.bin')
      await writeRandom(file, SIZE_MIB)
      const s3 = await startS3()
      const client = connect(s3)
      const broker = await startBroker(s3)
      try {
        const [persister] = await forEachPersister(async (one) => (one.name === 'node' ? [one] : []))
        if (persister === undefined) throw new Error('there is no persister for Node')
        return await measure({ persister, folder, file, s3, client, grant: broker.grant })
      } finally {
        await broker.close()
        client.destroy()
        await s3.close()
      }
    }),
}

/**
 * @param {{
 *   persister: import('../support/persisters.mjs').Persister, folder: string, file: string, grant: string,
 *   s3: import('../support/s3.mjs').BenchS3, client: import('@aws-sdk/client-s3').S3Client,
 * }} where
 * @returns {Promise<import('../support/entry.mjs').Measure[]>}
 */
async function measure({ persister, folder, file, s3, client, grant }) {
  const spool = join(folder, 'spool')
  const grantFile = join(folder, 'grant.json')
  await writeFile(grantFile, grant)
  const place = { WORKER_RESULTS_LOCAL_DIR: spool, WORKER_ID: 'bench' }
  const aws = await find('aws')
  const words = storeToS3(persister, file)
  const timed = async (
    /** @type {readonly [string, ...string[]]} */ command,
    /** @type {Record<string, string>} */ env,
  ) => {
    const ms = await timeCommand(command, env)
    // What a round leaves would fill the disk and, kept in the page cache, slow the next one down.
    await rm(spool, { recursive: true, force: true })
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: s3.bucket }))
    for (const { Key } of Contents) await client.send(new DeleteObjectCommand({ Bucket: s3.bucket, Key }))
    return ms
  }
  const times = await sideBySide(ROUNDS, {
    broker: () => timed(words, { ...place, WORKER_RESULTS_GRANT_FILE: grantFile }),
    keys: () => timed(words, { ...place, ...s3.env }),
    aws: async () =>
      aws === undefined
        ? 0
        : timed([aws, 's3', 'cp', '--only-show-errors', file, `s3://${s3.bucket}/cp/`], s3.env),
  })
  const { broker, keys } = times
  return [
    {
      name: ' against keys',
      value: broker.medianMs / keys.medianMs,
      bound: 1 / 0.9,
      unit: 'x',
      detail: `${formatTimes(broker)} : ${formatTimes(keys)}`,
    },
    ...(aws === undefined
      ? []
      : /** @type {import('../support/entry.mjs').Measure[]} */ ([
          {
            name: ' against aws s3 cp',
            value: broker.medianMs / times.aws.medianMs,
            bound: 1,
            unit: 'x',
            detail: `${formatTimes(broker)} : ${formatTimes(times.aws)}`,
          },
        ])),
  ]
}

/**
 * A conductor's broker over HTTP, in this process.
 *
 * @param {import('../support/s3.mjs').BenchS3} s3
 */
async function startBroker({ bucket, url: endpoint, region, credentials }) {
  const at = openS3Location({ bucket, endpoint, region, credentials })
  const tokenSecret = randomBytes(32).toString('hex')
  /** @type {(request: Request) => Promise<Response>} */
  let handler = async () => new Response(null, { status: 503 })
  const listener = toNodeListener((/** @type {Request} */ request) => handler(request))
  const server = createServer((request, response) => void listener(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the broker has no port')
  const broker = { url: `http://127.0.0.1:${address.port}/`, tokenSecret }
  const granter = new Granter({ s3: at, maxResultBytes: 2 * 2 ** 30, broker })
  handler = granter.handler()
  const expiresAt = new Date(Date.now() + 3_600_000)
  return {
    grant: JSON.stringify(await granter.issue({ taskId: 'bench', expiresAt, access: 'broker' })),
    close: async () => {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
      at.close()
    },
  }
}

/** @param {string} path @param {number} mebibytes */
async function writeRandom(path, mebibytes) {
  const file = await open(path, 'w')
  try {
    for (let i = 0; i < mebibytes; i += 1) await file.write(randomBytes(1 << 20))
    await file.sync()
  } finally {
    await file.close()
  }
}
