import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { find } from './command.mjs'

/**
 * nginx that takes PUT into a folder of its own, as its WebDAV module does; undefined where it is not installed.
 *
 * @param {string} folder
 * @returns {Promise<{ url: string, close: () => Promise<void> } | undefined>}
 */
export async function startNginx(folder) {
  const program = await find('nginx')
  if (program === undefined) return undefined
  const port = await freePort()
  const at = join(folder, 'nginx')
  for (const name of ['files', 'temp']) await mkdir(join(at, name), { recursive: true })
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${at}/temp/${name};`,
  )
  await writeFile(
    join(at, 'nginx.conf'),
    `daemon off; worker_processes 1; pid ${at}/pid; error_log ${at}/error.log;
${process.getuid?.() === 0 ? 'user root;' : ''}
events {}
http { access_log off; client_max_body_size 0; ${paths.join(' ')}
  server { listen 127.0.0.1:${port}; root ${at}/files; location / { dav_methods PUT; } } }
`,
  )
  const child = spawn(program, ['-c', join(at, 'nginx.conf'), '-p', at, '-e', join(at, 'error.log')], {
    stdio: 'ignore',
  })
  const exited = once(child, 'exit')
  const url = `http://127.0.0.1:${port}`
  const close = async () => {
    child.kill()
    await exited
  }
  for (let tries = 0; child.exitCode === null && tries < 100; tries += 1) {
    const answered = await fetch(url).then(
      (response) => response.status > 0,
      () => false,
    )
    if (answered) return { url, close }
    await sleep(50)
  }
  await close()
  throw new Error(`nginx does not answer; see ${at}/error.log`)
}

/** nginx cannot choose one itself. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : 0
}
