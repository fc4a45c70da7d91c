// npm run faults -- [--operations N] [--rounds N] [--seed S] [--s3 local|rgw] [--json]
// Bundles the laboratory, which is TypeScript, and starts it; the SDK under test is the compiled one in dist/.
import { spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const repository = resolve(here, '../..')
const source = join(repository, 'src')

/** @type {import('esbuild').Plugin} */
const compiledSdk = {
  name: 'compiled-sdk',
  setup: ({ onResolve }) => {
    onResolve({ filter: /^\.\.?\// }, ({ path, resolveDir }) => {
      const target = resolve(resolveDir, path)
      if (!target.startsWith(`${source}/`)) return undefined
      return { path: pathToFileURL(join(repository, 'dist', relative(source, target))).href, external: true }
    })
  },
}

process.exitCode = await main()

async function main() {
  await mkdir(join(repository, '.cache/faults'), { recursive: true })
  const folder = await mkdtemp(join(repository, '.cache/faults/'))
  try {
    /** @type {import('esbuild').BuildOptions} */
    const common = {
      bundle: true,
      platform: 'node',
      target: 'node20',
      logLevel: 'error',
      absWorkingDir: here,
    }
    await build({
      ...common,
      entryPoints: [
        'main.ts',
        ...['e2b', 's3', 'endpoint', 'conductor', 'matrix'].map((name) => `processes/${name}-main.ts`),
      ],
      entryNames: '[name]',
      outdir: folder,
      outExtension: { '.js': '.mjs' },
      format: 'esm',
      packages: 'external',
      plugins: [compiledSdk],
    })
    // What runs in a sandbox is one file and brings everything along.
    await build({
      ...common,
      entryPoints: ['sandboxed/main.ts'],
      outfile: join(folder, 'sandboxed.cjs'),
      format: 'cjs',
    })
    await build({
      ...common,
      entryPoints: ['matrix/step-hook.ts'],
      outfile: join(folder, 'step-hook.cjs'),
      format: 'cjs',
    })
    await copyFile(join(here, 'matrix/shell-hook.sh'), join(folder, 'shell-hook.sh'))
    const child = spawn(process.execPath, [join(folder, 'main.mjs'), ...process.argv.slice(2)], {
      stdio: 'inherit',
    })
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
    return await new Promise((done) =>
      child.once('exit', (code, signal) => done(code ?? (signal === null ? 1 : 130))),
    )
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
