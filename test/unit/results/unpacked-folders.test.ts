import { appendFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { UnpackedFolders } from '../../../src/results/unpacked-folders.js'
import { makeTempDir, type TempDir } from '../../support/temp-dir.js'

let dir: TempDir
beforeEach(async () => {
  dir = await makeTempDir()
})
afterEach(async () => {
  await dir[Symbol.asyncDispose]()
})

const open = (): Promise<UnpackedFolders> => UnpackedFolders.open(dir.path)
const staging = (name: string): string => join(dir.path, name)
/** What a later download takes the folder for. */
const isOf = async (sha256: string): Promise<boolean> => (await open()).isOf('f', sha256)

it('counts from when the folder has its name, wherever a crash comes', async () => {
  expect(await isOf('one')).toBe(false)
  await mkdir(staging('s1'))
  await (await open()).add('f', 'one', staging('s1'))
  // As a crash here leaves it, and somebody else makes a folder.
  expect(await isOf('one')).toBe(false)
  await rename(staging('s1'), staging('f'))
  expect(await isOf('one')).toBe(true)
  expect(await isOf('two')).toBe(false)
})

it('goes by the last that got the name', async () => {
  const unpacked = await open()
  await unpacked.add('f', 'one', staging('s1'))
  await unpacked.add('f', 'two', staging('s2'))
  expect([await isOf('one'), await isOf('two')]).toEqual([false, true])
  // Another process was first.
  await unpacked.retract('f', staging('s2'))
  expect([await isOf('one'), await isOf('two')]).toEqual([true, false])
})

it('passes over what is cut off or none of its own, and loses nothing after it', async () => {
  const log = join(dir.path, '.unpacked.jsonl')
  await writeFile(log, '{"folder":"f","sha256":"one","stag')
  await (await open()).add('f', 'two', staging('s2'))
  await appendFile(log, 'null\n{}\n{"folder":1}\n[')
  expect([await isOf('one'), await isOf('two')]).toEqual([false, true])
  expect(await readFile(log, 'utf8')).toMatch(/^\{"folder":"f","sha256":"one","stag\n/)
  await rm(log)
  expect(await isOf('two')).toBe(false)
})
