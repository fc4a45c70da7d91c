import { afterAll, beforeAll, expect, it } from 'vitest'
import { deliverAll } from '../../../../src/conductor/end/deliver.js'
import { DirectoryFiles } from '../../../../src/stores/directory-files.js'
import { openS3Location, type S3Location } from '../../../../src/stores/s3/s3-location.js'
import { S3Store } from '../../../../src/stores/s3/s3-store.js'
import { SpoolStore } from '../../../../src/stores/spool-store.js'
import { plantInFolder } from '../../../support/plant-spool.js'
import { recordFor } from '../../../support/records.js'
import { makeTempDir, type TempDir } from '../../../support/temp-dir.js'

let dir: TempDir
let away: S3Location
beforeAll(async () => {
  dir = await makeTempDir()
  away = openS3Location({
    bucket: 'away',
    endpoint: 'http://127.0.0.1:9',
    region: 'us-east-1',
    credentials: { accessKeyId: 'nobody', secretAccessKey: 'knows' },
  })
})
afterAll(async () => {
  away?.close()
  await dir?.[Symbol.asyncDispose]()
})

it('says of a volume that it holds a result only when it does, while S3 is away', async () => {
  const body = Buffer.from('content')
  const inS3 = [{ tier: 's3' as const, location: 's3://away/x', at: new Date().toISOString() }]
  const pending = recordFor({ taskId: 't', name: 'pending' }, body)
  const delivered = { ...recordFor({ taskId: 't', name: 'delivered' }, body), stored: inS3 }
  const elsewhere = { ...recordFor({ taskId: 't', name: 'elsewhere' }, body), stored: inS3 }
  for (const record of [pending, delivered]) await plantInFolder(dir.path, record, body)
  const deliveries = await deliverAll([pending, delivered, elsewhere], {
    spool: new SpoolStore('volume', 'volume', new DirectoryFiles(dir.path)),
    s3: new S3Store(away),
    http: undefined,
    spoolIsVolume: true,
  })
  expect(deliveries.map(({ tiers, undelivered }) => [tiers, undelivered === undefined])).toEqual([
    [['volume'], true],
    [['volume'], true],
    [[], false],
  ])
  expect(deliveries[2]?.undelivered).toMatch(/away/)
})
