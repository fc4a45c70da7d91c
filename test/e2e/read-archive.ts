import { text } from 'node:stream/consumers'
import { createGunzip } from 'node:zlib'
import { extract } from 'tar-stream'

/** Regular files of a `.tar.gz`, path by path, as text. */
export async function readArchive(bytes: Uint8Array): Promise<Record<string, string>> {
  const entries = extract()
  const unzip = createGunzip()
  // An archive that is cut off must fail the reading, not end it.
  unzip.on('error', (error) => entries.destroy(error))
  unzip.pipe(entries)
  unzip.end(bytes)
  const files: Record<string, string> = {}
  for await (const entry of entries) {
    const content = await text(entry)
    if (entry.header.type === 'file') files[entry.header.name] = content
  }
  return files
}
