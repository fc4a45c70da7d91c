import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Folder } from '../../../src/results/download-places.js'

const digestOf = (name: string): string => createHash('sha256').update(`w/${name}`).digest('hex')

describe('names in a folder that is downloaded into', () => {
  const take = (names: readonly string[], there: readonly string[] = []): string[] => {
    const folder = new Folder('/any', there)
    return names.map((name) => folder.take(name, `w/${name}`))
  }
  const unpacked = (name: string): string => name.replace(/\.tar\.gz$/, '')

  it.each([
    ['case', 'A.txt', 'a.txt'],
    ['the case of letters that have two of one kind', 'STRASSE', 'straße'],
    ['composition', 'f\u00fc', 'fu\u0308'],
    ['both', '\u00c9', 'e\u0301'],
    ['what nobody sees', 'ab', 'a\u200db'],
    ['the kind of a letter', 'k', '\u212a'],
  ])('are told apart when they differ only in %s', (_, first, second) => {
    const [one, other = ''] = take([first, second])
    expect(one).toBe(first)
    expect(other).toMatch(/^[^~]+~[0-9a-f]{8}(\.txt)?$/)
    // The same ones each time, whoever else comes along.
    expect(take([first, 'else', second])).toEqual([first, 'else', other])
  })

  it('stay what they are when they differ in anything else', () => {
    const names = ['a.txt', 'b.txt', 'a.txt2', 'a txt', 'ä.txt', 'x2', 'x\u00b2']
    expect(take(names)).toEqual(names)
  })

  it('are given to one owner once, and never to two', () => {
    const folder = new Folder('/any', [])
    expect(folder.take('W', 'W')).toBe('W')
    expect(folder.take('W', 'W')).toBe('W')
    const other = folder.take('w', 'w')
    expect(other).toMatch(/^w~[0-9a-f]{8}$/)
    expect(folder.take('w', 'w')).toBe(other)
    const [, second = ''] = take(['A.txt', 'a.txt'])
    // Somebody who knows what is added has taken that, too.
    expect(take(['A.txt', second, 'a.txt'])).toEqual([
      'A.txt',
      second,
      expect.stringMatching(/^a~[0-9a-f]{16}\.txt$/),
    ])
  })

  it('are not those of what was there under another spelling', () => {
    expect(take(['a.txt'], ['a.txt'])).toEqual(['a.txt'])
    expect(take(['a.txt'], ['A.txt', 'a.txt'])).toEqual(['a.txt'])
    const [name = ''] = take(['a.txt'], ['A.txt'])
    expect(name).toMatch(/^a~[0-9a-f]{8}\.txt$/)
    // Its own, however the file system spells it.
    expect(take(['a.txt'], ['A.txt', name.toUpperCase()])).toEqual([name])
  })

  it('are given to nobody twice, whoever has taken all that could be added', () => {
    const added = [8, 16, 64].map((count) => `A~${digestOf('a.txt').slice(0, count)}.txt`)
    const all = take(['A.txt', ...added, 'a.txt'])
    expect(new Set(all.map((name) => name.toLowerCase())).size).toBe(all.length)
  })

  it.each([
    ['letters', `${'A'.repeat(241)}.txt`, `${'a'.repeat(241)}.txt`, /^a+~[0-9a-f]+\.txt$/],
    ['signs of four bytes', `${'😀'.repeat(61)}K`, `${'😀'.repeat(61)}k`, /^😀+k?~[0-9a-f]+$/u],
    ['an archive', `${'A'.repeat(238)}.tar.gz`, `${'a'.repeat(238)}.tar.gz`, /^a+~[0-9a-f]+\.tar\.gz$/],
    [
      'hardly anything but an ending',
      `a.${'B'.repeat(243)}`,
      `a.${'b'.repeat(243)}`,
      /^a(\.b+~[0-9a-f]+|~[0-9a-f]+\.b+)$/,
    ],
  ])(
    'leave room for what is added, and for a dot in front, where they are long: %s',
    (_, first, second, shown) => {
      const all = [first]
      // The shorter additions are somebody else's.
      for (const digits of [8, 16, 64, 64]) {
        const [name = ''] = take([...all, second]).slice(-1)
        expect(name).toMatch(shown)
        expect(/~([0-9a-f]+)/.exec(name)?.[1]).toHaveLength(digits)
        expect(Buffer.byteLength(name)).toBeLessThanOrEqual(254)
        all.push(name)
      }
    },
  )

  it('are kept apart from those that archives are unpacked to', () => {
    const folder = new Folder('/any', [])
    const names = ['out', 'out.tar.gz', 'OUT.tar.gz'].map((name) => folder.take(name, `w/${name}`, unpacked))
    expect(names.slice(0, 1)).toEqual(['out'])
    expect(names.slice(1)).toEqual([
      expect.stringMatching(/^out~[0-9a-f]{8}\.tar\.gz$/),
      expect.stringMatching(/^OUT~[0-9a-f]{8}\.tar\.gz$/),
    ])
  })
})
