import type { ResultRecord } from '../../protocol/record.js'
import { Courier } from '../courier.js'
import { catchUp } from '../deliver.js'
import { latestNamed, storeOutput } from '../drain.js'
import { describeError } from '../fs-error.js'
import type { Settings } from '../settings.js'
import { listSpool } from '../spool/scan.js'

/** Something a supervised command leaves behind. */
export interface Keepsake {
  readonly path: string
  /** @default the path's last segment */
  readonly name?: string | undefined
}

/** Stores what a command leaves behind, as often as it is asked to, and only what changed. Nothing it does can fail the command. */
export class Keeper {
  readonly #settings: Settings
  readonly #taskId: string
  readonly #latest = new Map<string, ResultRecord>()
  #listed = false

  constructor(settings: Settings, taskId: string) {
    this.#settings = settings
    this.#taskId = taskId
  }

  /** Stores and delivers; what is missing is reported when `mention` says so. */
  async keep(things: readonly Keepsake[], mention: 'missing' | 'failures'): Promise<void> {
    try {
      await this.#keep(things, mention)
    } catch (error) {
      this.#settings.warn(`cannot deliver results: ${describeError(error)}`)
    }
  }

  async #keep(things: readonly Keepsake[], mention: 'missing' | 'failures'): Promise<void> {
    const courier = new Courier(this.#settings, this.#taskId)
    if (!this.#listed) await this.#list()
    for (const thing of things) {
      const latest = (name: string): ResultRecord | undefined => this.#latest.get(name)
      const { report, record } = await storeOutput(this.#settings, courier, this.#taskId, {
        ...thing,
        latest,
      })
      if (record !== undefined) this.#latest.set(record.name, record)
      if (report.status === 'failed') this.#settings.warn(`${report.path} is not stored: ${report.error}`)
      if (report.status === 'missing' && mention === 'missing') {
        this.#settings.warn(`${report.path} is not stored: it does not exist`)
      }
    }
    await catchUp(this.#settings, courier, this.#taskId)
  }

  async #list(): Promise<void> {
    const records = await listSpool(this.#settings.localDir, this.#taskId)
    for (const { name } of records) {
      const latest = latestNamed(records, name)
      if (latest !== undefined) this.#latest.set(name, latest)
    }
    this.#listed = true
  }
}
