import { win32 } from 'node:path'
import { expect, it } from 'vitest'
import { localName } from '../../../src/results/local-name.js'

const NAMES = ['..\\..\\evil', 'a:stream', 'C:\\x', 'dot.', 'space ', '50%', '50%25', '<>"|?*', 'plain ä.txt']

it('keeps every name inside its folder on Windows, and apart from every other', () => {
  const local = NAMES.map((name) => localName(`20260114-120000-${name}`, 'win32'))
  for (const name of local) {
    const path = win32.join('C:\\results', name)
    expect(win32.dirname(path)).toBe('C:\\results')
    expect(win32.basename(path)).toBe(name)
    expect(name).not.toMatch(/[<>:"|?*\\]|[. ]$/)
  }
  expect(new Set(local).size).toBe(NAMES.length)
  expect(local.map((name) => decodeURIComponent(name.slice(16)))).toEqual(NAMES)
  expect(local.at(-1)).toBe('20260114-120000-plain ä.txt')
})

it('leaves names alone elsewhere', () => {
  for (const name of NAMES) expect(localName(name, 'linux')).toBe(name)
})
