import { stat } from 'node:fs/promises'
import { BUNDLE } from '../support/dist.mjs'

/** @type {import('../support/entry.mjs').Entry} */
export const entry = {
  what: 'size of the one file that the persister for Node is',
  run: async () => {
    const { size } = await stat(BUNDLE)
    return [{ name: '', value: size / 1024, bound: 150, unit: 'KB', detail: `${size} bytes` }]
  },
}
