#!/usr/bin/env node
// Bundles the in-sandbox program: node src/persister/bundle.mjs [OUTDIR], default dist/persist-result.
import { chmod, copyFile, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { builtinModules } from 'node:module'
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

/** @param {import('esbuild').BuildOptions} options */
async function bundle(entryPoint, options) {
  const { metafile, outputFiles } = await build({
    entryPoints: [join(here, entryPoint)],
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
    ...options,
  })
  const [output] = Object.values(metafile.outputs)
  const builtin = new Set(builtinModules)
  const missing = output.imports.filter(({ path }) => !path.startsWith('node:') && !builtin.has(path))
  if (missing.length > 0) throw new Error(`not bundled: ${missing.map(({ path }) => path).join(', ')}`)
  return { text: outputFiles[0].text.trimEnd(), inputs: Object.entries(output.inputs) }
}

const PROGRAM_AT = 2048
const start = await bundle('start.ts', {
  banner: { js: '#!/usr/bin/env node' },
  define: { PROGRAM_AT: String(PROGRAM_AT) },
})
const program = await bundle('entry.ts', {
  define: { PERSIST_RESULT_VERSION: JSON.stringify(version) },
})
// An ES module that imports this file learns its names from a line that never runs.
const names = /0&&\(module\.exports=\{[\w,]+\}\);/.exec(program.text)?.[0]
if (names === undefined) throw new Error('the program does not say what it exports')
const head = `${start.text}\n${names}\n`
if (head.length > PROGRAM_AT) throw new Error(`what starts the program has ${head.length} bytes`)
const wrapped = `(function(exports,require,module,__filename,__dirname,keepCode){\n${program.text}\n})`
const comments = `\n${wrapped}`.replaceAll('\n', '\n//')
const contents = Buffer.from(`${head.padEnd(PROGRAM_AT)}${comments}\n`)
if (contents.length > MAX_BUNDLE_BYTES) {
  throw new Error(`the bundle has ${contents.length} bytes, more than ${MAX_BUNDLE_BYTES}`)
}
await place('package.json', 0o644, (path) => writeFile(path, '{"type":"commonjs"}\n'))
await place('persist-result.js', 0o755, (path) => writeFile(path, contents))
// For programs that are bundled themselves, and lose their comments.
await place('module.js', 0o644, (path) => writeFile(path, `${program.text}\n`))
await place('persist-result.d.ts', 0o644, (path) => copyFile(join(here, 'persist-result.d.ts'), path))
// One file of shell out of its parts, in the order of their names.
const parts = (await readdir(join(here, 'sh'))).filter((name) => name.endsWith('.sh')).sort()
const script = await Promise.all(parts.map((name) => readFile(join(here, 'sh', name), 'utf8')))
await place('persist-result.sh', 0o755, (path) => writeFile(path, script.join('')))
await place('persist-result', 0o755, (path) => copyFile(join(here, 'persist-result'), path))
if (process.argv.includes('--verbose')) {
  for (const [path, { bytesInOutput }] of program.inputs) console.log(bytesInOutput, path)
}
console.log(`${join(outdir, 'persist-result.js')}: ${contents.length} bytes`)
