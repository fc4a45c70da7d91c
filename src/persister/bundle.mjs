#!/usr/bin/env node
// Bundles the in-sandbox program: node src/persister/bundle.mjs [OUTDIR], default dist/persist-result.
import { chmod, copyFile, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const MAX_BUNDLE_BYTES = 150 * 1024
const here = dirname(fileURLToPath(import.meta.url))
const root = resolve(here, '../..')
const outdir = resolve(process.argv[2] ?? join(root, 'dist/persist-result'))

/** Puts a file in place at once: tests of other runs may be starting the one that is there. */
async function place(name, mode, make) {
  const temporary = join(outdir, `.${name}.${process.pid}`)
  await make(temporary)
  await chmod(temporary, mode)
  await rename(temporary, join(outdir, name))
}

const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
await mkdir(outdir, { recursive: true })
const { metafile, outputFiles } = await build({
  entryPoints: [join(here, 'entry.ts')],
  outfile: join(outdir, 'persist-result.js'),
  write: false,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node18',
  minify: true,
  // A real import() starts Node's loader of ES modules, which takes milliseconds; all there is to import are Node's own modules.
  supported: { 'dynamic-import': false },
  // One sign beyond Latin-1 would have V8 hold and read all of it in twice the room.
  charset: 'ascii',
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
  logOverride: { 'commonjs-variable-in-esm': 'silent' },
  banner: { js: '#!/usr/bin/env node' },
  define: { PERSIST_RESULT_VERSION: JSON.stringify(version) },
})
const bundle = Object.values(metafile.outputs)[0]
const outside = bundle.imports.filter(({ path, external }) => external && !path.startsWith('node:'))
const builtin = new Set((await import('node:module')).builtinModules)
const missing = outside.filter(({ path }) => !builtin.has(path))
if (missing.length > 0) throw new Error(`not bundled: ${missing.map(({ path }) => path).join(', ')}`)
const [{ contents }] = outputFiles
if (contents.length > MAX_BUNDLE_BYTES) {
  throw new Error(`the bundle has ${contents.length} bytes, more than ${MAX_BUNDLE_BYTES}`)
}
await place('package.json', 0o644, (path) => writeFile(path, '{"type":"commonjs"}\n'))
await place('persist-result.js', 0o755, (path) => writeFile(path, contents))
await place('persist-result.d.ts', 0o644, (path) => copyFile(join(here, 'persist-result.d.ts'), path))
// One file of shell out of its parts, in the order of their names.
const parts = (await readdir(join(here, 'sh'))).filter((name) => name.endsWith('.sh')).sort()
const script = await Promise.all(parts.map((name) => readFile(join(here, 'sh', name), 'utf8')))
await place('persist-result.sh', 0o755, (path) => writeFile(path, script.join('')))
await place('persist-result', 0o755, (path) => copyFile(join(here, 'persist-result'), path))
if (process.argv.includes('--verbose')) {
  for (const [path, { bytesInOutput }] of Object.entries(bundle.inputs)) console.log(bytesInOutput, path)
}
console.log(`${join(outdir, 'persist-result.js')}: ${contents.length} bytes`)
