import { createHash } from 'node:crypto'
import { open as openFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decryptChunks, readContentDigest } from '../../../src/encryption/decrypt-chunks.js'
import { decryptFile } from '../../../src/encryption/decrypt-file.js'
import { readPrivateKeys } from '../../../src/encryption/keys.js'
import { parsePublicKey } from '../../../src/protocol/encryption/public-key.js'
import {
  CHUNK_BYTES,
  contentSize,
  DIGEST_BYTES,
  HEADER_BYTES,
  KEY_ID_BYTES,
  MAGIC,
  SEALED_CHUNK_BYTES,
  sealedSize,
} from '../../../src/protocol/encryption/sealed-format.js'
import {
  formatSealedType,
  isSealedType,
  parseSealedType,
} from '../../../src/protocol/encryption/sealed-type.js'
import { makeKeys, open, seal } from '../../support/sealed.js'
import { makeTempDir } from '../../support/temp-dir.js'

const TASK = 'worker-1'
const NAME = 'ü report.csv'
const RESULT = `${TASK}/20260114-120000-${NAME}`
const keys = makeKeys()

/** Sizes around every edge: of nothing, of a chunk, and of where the digest behind the content begins a new one. */
const edges = [0, 1, 2]
  .flatMap((chunks) => [chunks * CHUNK_BYTES - DIGEST_BYTES, chunks * CHUNK_BYTES])
  .flatMap((size) => [size - 1, size, size + 1])
  .filter((size) => size >= 0)

function contentOf(size: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >> 9)) & 0xff))
}

/** Cuts bytes at random places. */
function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((part) => Math.floor(part * bytes.length)).sort((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end))
}

const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 })
const sizes = fc.oneof(fc.constantFrom(...edges), fc.integer({ min: 0, max: 3 * CHUNK_BYTES }))

const sealedOf = (content: Buffer, name = NAME, taskId = TASK): Buffer => seal(keys, taskId, name, [content])
const refused = { code: 'INTEGRITY' }

describe('an encrypted result', () => {
  it('gives back what went in, however both come in pieces', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, cuts, cuts, async (size, inPieces, outPieces) => {
        const content = contentOf(size)
        const sealed = seal(keys, TASK, NAME, cut(content, inPieces))
        expect((await open(keys, RESULT, cut(sealed, outPieces))).equals(content)).toBe(true)
      }),
      { numRuns: 60, examples: edges.map((size): [number, number[], number[]] => [size, [], []]) },
    )
  })

  it('has the size that its content says, and no content says any other', () => {
    fc.assert(
      fc.property(sizes, (size) => {
        expect(contentSize(sealedSize(size))).toBe(size)
      }),
      { examples: edges.map((size): [number] => [size]) },
    )
    for (const size of edges) expect(sealedOf(contentOf(size))).toHaveLength(sealedSize(size))
    const possible = new Set(Array.from({ length: CHUNK_BYTES * 2 }, (_, size) => sealedSize(size)))
    const wrong: number[] = []
    for (let size = 0; size < HEADER_BYTES + 2 * CHUNK_BYTES; size++) {
      if ((contentSize(size) !== undefined) !== possible.has(size)) wrong.push(size)
    }
    expect(wrong).toEqual([])
  })

  it('is another each time, and shows nothing of its content', () => {
    const content = Buffer.from('the same secret, again and again. '.repeat(100))
    const [a, b] = [sealedOf(content), sealedOf(content)]
    expect(
      a.subarray(0, MAGIC.length + KEY_ID_BYTES).equals(b.subarray(0, MAGIC.length + KEY_ID_BYTES)),
    ).toBe(true)
    const common = a.filter((byte, i) => byte === b[i]).length
    // By chance one byte in 256.
    expect(common).toBeLessThan(MAGIC.length + KEY_ID_BYTES + 60)
    expect(a.includes('secret')).toBe(false)
    expect(a.includes(createHash('sha256').update(content).digest())).toBe(false)
  })

  it('is refused with any bit flipped', async () => {
    const sealed = sealedOf(Buffer.from('x'))
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const flipped = Buffer.from(sealed)
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const at = bit >> 3
      const inKeyId = at >= MAGIC.length && at < MAGIC.length + KEY_ID_BYTES
      await expect(open(keys, RESULT, [flipped]), `bit ${bit}`).rejects.toMatchObject({
        code: at === MAGIC.length - 1 ? 'UNSUPPORTED' : inKeyId ? 'DECRYPTION_KEY_MISSING' : 'INTEGRITY',
      })
    }
  })

  it('is refused with any bit of a longer one flipped, which no later byte mends', async () => {
    const sealed = sealedOf(contentOf(2 * CHUNK_BYTES + 10))
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: HEADER_BYTES, max: sealed.length - 1 }),
        fc.nat(7),
        async (at, bit) => {
          const flipped = Buffer.from(sealed)
          flipped[at] = (flipped[at] ?? 0) ^ (1 << bit)
          await expect(open(keys, RESULT, [flipped])).rejects.toMatchObject(refused)
        },
      ),
      { numRuns: 40 },
    )
  })

  it('is refused cut off anywhere, with anything added, and with chunks left out, repeated or moved', async () => {
    const sealed = sealedOf(contentOf(3 * CHUNK_BYTES - DIGEST_BYTES))
    const header = sealed.subarray(0, HEADER_BYTES)
    const chunks = [0, 1, 2].map((i) => {
      const at = HEADER_BYTES + i * SEALED_CHUNK_BYTES
      return sealed.subarray(at, at + SEALED_CHUNK_BYTES)
    })
    const [a, b, c] = chunks as [Buffer, Buffer, Buffer]
    expect((await open(keys, RESULT, [header, a, b, c])).length).toBe(3 * CHUNK_BYTES - DIGEST_BYTES)
    const wrong: Buffer[][] = [
      [],
      [header.subarray(0, 50)],
      [header],
      [header, a],
      [header, a, b],
      [header, a, b, c.subarray(0, -1)],
      [header, a, b, c, Buffer.alloc(1)],
      [header, a, b, c, c],
      [header, a, b, c, header, a, b, c],
      [header, b, a, c],
      [header, a, c, b],
      [header, a, c],
      [header, c],
      [header, a, a, b, c],
      [header, header, a, b, c],
    ]
    for (const pieces of wrong) await expect(open(keys, RESULT, pieces)).rejects.toMatchObject(refused)
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: sealed.length - 1 }), async (length) => {
        await expect(open(keys, RESULT, [sealed.subarray(0, length)])).rejects.toMatchObject(refused)
      }),
      { numRuns: 30, examples: [[HEADER_BYTES], [HEADER_BYTES + 16], [HEADER_BYTES + 48]] },
    )
  })

  it('hands out nothing of a chunk that is wrong', async () => {
    const content = contentOf(3 * CHUNK_BYTES)
    const sealed = sealedOf(content)
    const at = HEADER_BYTES + SEALED_CHUNK_BYTES + 5
    sealed[at] = (sealed[at] ?? 0) ^ 1
    const seen: Uint8Array[] = []
    const pieces = (async function* () {
      yield sealed
    })()
    await expect(async () => {
      for await (const part of decryptChunks(pieces, keys.decryptor, RESULT)) seen.push(part)
    }).rejects.toMatchObject(refused)
    expect(Buffer.concat(seen).equals(content.subarray(0, seen.length * CHUNK_BYTES))).toBe(true)
    expect(seen.length).toBeLessThanOrEqual(1)
  })

  it("is refused behind another one's header, or under another task or name", async () => {
    const [one, two] = [sealedOf(contentOf(100)), sealedOf(contentOf(100))]
    const swapped = Buffer.concat([one.subarray(0, HEADER_BYTES), two.subarray(HEADER_BYTES)])
    await expect(open(keys, RESULT, [swapped])).rejects.toMatchObject(refused)
    for (const other of [sealedOf(contentOf(9), 'other'), sealedOf(contentOf(9), NAME, 'worker-2')]) {
      await expect(open(keys, RESULT, [other])).rejects.toMatchObject(refused)
    }
    // Its key may move on by seconds.
    expect(await open(keys, `${TASK}/20260114-120003-${NAME}`, [one])).toHaveLength(100)
  })

  it('is refused with an ephemeral key that would make the secret known', async () => {
    const sealed = sealedOf(contentOf(9))
    sealed.fill(0, MAGIC.length + KEY_ID_BYTES, MAGIC.length + KEY_ID_BYTES + 32)
    await expect(open(keys, RESULT, [sealed])).rejects.toMatchObject(refused)
  })

  it('opens with the right one of several keys, and with no other', async () => {
    const other = makeKeys()
    await expect(open(other, RESULT, [sealedOf(contentOf(9))])).rejects.toMatchObject({
      code: 'DECRYPTION_KEY_MISSING',
      message: expect.stringContaining(keys.keyId),
    })
    // One that claims to be for the other key is not opened by it either.
    const forged = sealedOf(contentOf(9))
    Buffer.from(other.keyId, 'hex').copy(forged, MAGIC.length)
    await expect(open(other, RESULT, [forged])).rejects.toMatchObject(refused)
  })

  it('is turned into its content in place, and tells its digest by its ends', async () => {
    await using dir = await makeTempDir()
    for (const size of [...edges, 64 * CHUNK_BYTES - DIGEST_BYTES, 70 * CHUNK_BYTES + 7]) {
      const content = contentOf(size)
      const sealed = sealedOf(content)
      const path = join(dir.path, 'file')
      await writeFile(path, sealed)
      const file = await openFile(path, 'r+')
      try {
        expect(await decryptFile(file, sealed.length, keys.decryptor, RESULT)).toBe(size)
      } finally {
        await file.close()
      }
      expect((await readFile(path)).equals(content)).toBe(true)
      const readFrom = async function* (offset: number): AsyncGenerator<Uint8Array> {
        yield* cut(sealed.subarray(offset), [0.3, 0.6])
      }
      expect(await readContentDigest(readFrom, keys.decryptor, { key: RESULT, size: sealed.length })).toBe(
        createHash('sha256').update(content).digest('hex'),
      )
    }
  })
})

describe('the content type of an encrypted result', () => {
  it('tells key and type, and fits every tier', () => {
    const printable = fc.string({
      unit: fc.integer({ min: 0x20, max: 0x7e }).map((n) => String.fromCharCode(n)),
    })
    fc.assert(
      fc.property(printable, (parameters) => {
        const contentType = `text/x;${parameters}`
        const sealed = formatSealedType({ keyId: keys.keyId, contentType })
        // As RFC 9110 has it, without quotes.
        expect(sealed).toMatch(/^[\w.+-]+\/[\w.+-]+(?:; [\w]+=[!#$%&'*+.^_`|~0-9A-Za-z-]+)*$/)
        expect(sealed.length).toBeLessThanOrEqual(255)
        const isWhole = sealed.includes('; type=')
        expect(isWhole || encodeURIComponent(contentType).length > 150).toBe(true)
        expect(parseSealedType(sealed)).toEqual({
          keyId: keys.keyId,
          contentType: isWhole ? contentType : 'application/octet-stream',
        })
      }),
    )
  })

  it('is read whoever wrote it', () => {
    for (const other of [
      '',
      'text/plain',
      'application/vnd.stu-conductor.encrypted2',
      'x; application/vnd.stu-conductor.encrypted',
    ]) {
      expect(isSealedType(other)).toBe(false)
      expect(parseSealedType(other)).toBeUndefined()
    }
    const type = 'application/vnd.stu-conductor.encrypted'
    const unknown = { keyId: undefined, contentType: 'application/octet-stream' }
    for (const bad of [
      '',
      ';',
      '; key=XYZ',
      '; type=%',
      '; type=%0d%0a',
      `; type=${type.replace('/', '%2F')}`,
      ';=;==',
    ]) {
      expect(parseSealedType(`${type}${bad}`)).toEqual(unknown)
    }
    expect(parseSealedType(` ${type.toUpperCase()} ;TYPE=a%2Fb;Key=0123456789abcdef`)).toEqual({
      keyId: '0123456789abcdef',
      contentType: 'a/b',
    })
  })
})

describe('keys', () => {
  it('are refused when they are something else, without being repeated', () => {
    const wrong = [
      '',
      'x25519:',
      `x25519:${'A'.repeat(42)}`,
      `X25519:${'A'.repeat(43)}`,
      keys.privateKey,
      `${keys.publicKey}A`,
    ]
    for (const text of wrong) {
      expect(() => parsePublicKey('it', text)).toThrow(/^it must be a public key[^A]*$/)
    }
    for (const text of [
      '',
      'x',
      keys.publicKey,
      keys.privateKey.slice(0, 60),
      keys.privateKey.replace(/^M/m, '*'),
    ]) {
      expect(() => readPrivateKeys('it', text)).toThrow(
        /^it must be an X25519 private key in PEM, unencrypted$/,
      )
    }
    expect(parsePublicKey('it', ` ${keys.publicKey}\n`).id).toBe(keys.keyId)
    const two = `# old\n${keys.privateKey}\n# new\n${makeKeys().privateKey}`
    expect(readPrivateKeys('it', two).map(({ id }) => id)).toContain(keys.keyId)
    expect(readPrivateKeys('it', two.replaceAll('\n', '\\n'))).toHaveLength(2)
  })
})
