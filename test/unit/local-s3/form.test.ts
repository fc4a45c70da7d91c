import { expect, it } from 'vitest'
import { openForm } from '../../../src/local/s3/body/form.js'
import type { S3Request } from '../../../src/local/s3/request.js'

const broken = Object.assign(new Error('the connection broke off'), { code: 'ECONNRESET' })

/** A request whose body is these pieces, and then whatever `end` does. */
function requestOf(pieces: readonly string[], end: () => void): S3Request {
  async function* body(): AsyncGenerator<Buffer> {
    for (const piece of pieces) yield Buffer.from(piece)
    end()
  }
  const headers = { 'content-type': 'multipart/form-data; boundary=x' }
  return { headers, body: body() } as unknown as S3Request
}

const part = (name: string, more = ''): string =>
  `--x\r\ncontent-disposition: form-data; name="${name}"${more}\r\n\r\n`
const upTo = `${part('key')}some/key\r\n${part('file', '; filename="f"')}`

/** Reads a form to its end, as an upload does. */
async function read(request: S3Request): Promise<void> {
  const form = await openForm(request)
  for await (const _ of form.file);
  await form.ended
}

// A reader that is told nothing waits for ever, and the server with it when it is to close.
it.each([
  ['before a byte of the file', [upTo]],
  ['in the middle of the file', [upTo, 'a'.repeat(5000), 'b'.repeat(5000)]],
  ['in the middle of the boundary after it', [upTo, 'whole', '\r\n--']],
  ['after more than the reader is ahead', [upTo, 'a'.repeat(3 << 20)]],
])(
  'fails a file whose connection breaks %s',
  async (_where, pieces) => {
    const request = requestOf(pieces, () => {
      throw broken
    })
    await expect(read(request)).rejects.toBe(broken)
  },
  5_000,
)

it.each([
  ['before a byte of the file', [upTo]],
  ['in the middle of the file', [upTo, 'a'.repeat(5000)]],
  ['in the middle of the boundary after it', [upTo, 'whole\r\n--']],
])(
  'calls a form malformed that ends %s',
  async (_where, pieces) => {
    const request = requestOf(pieces, () => undefined)
    await expect(read(request)).rejects.toMatchObject({ code: 'MalformedPOSTRequest' })
  },
  5_000,
)

it('reads a whole form', async () => {
  await expect(read(requestOf([upTo, 'whole', '\r\n--x--\r\n'], () => undefined))).resolves.toBeUndefined()
})
