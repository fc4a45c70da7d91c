import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ConductorProcess } from './conductor-process.js'
import type { ConductorEvent, MeddlingWay, WorkerOrder } from './messages.js'
import type { Victim } from './moves.js'
import { lifeOf } from './plan.js'
import type { Dice } from './random.js'
import type { TaskBook } from './task-book.js'
import type { World } from './world.js'

/** Longest that a second conductor gets for what it is at. */
const MEDDLING_MS = 20_000

/** A second conductor of the same id, which takes the first one for dead. */
export class Meddler {
  readonly #options: { readonly seed: number; readonly programs: string }
  readonly #world: World
  readonly #book: TaskBook

  constructor(options: { readonly seed: number; readonly programs: string }, world: World, book: TaskBook) {
    this.#options = options
    this.#world = world
    this.#book = book
  }

  /** Resolves, once it is no more, with whether it had its hands in anything. */
  async meddle({ taskId, life, plan }: Victim, dice: Dice): Promise<boolean> {
    const how = dice.weighted<MeddlingWay>([
      ['run', 3],
      ['recover', 2],
      ['terminate', 1],
    ])
    const { seed, programs } = this.#options
    const { env, conductorOptions, ledger } = this.#world
    const further: WorkerOrder = {
      seed,
      taskId,
      kind: plan.kind,
      operations: [this.#book.nextOperation()],
      exitCode: 0,
      reportUrl: ledger.url,
      holds: false,
      isFurther: true,
    }
    const run = { command: 'exec node /workspace/lab.cjs', env: { LAB_ORDER: JSON.stringify(further) } }
    const note = (): void => {
      for (const victim of how === 'recover' ? this.#book.tasks : [{ taskId, life }])
        this.#book.meddled.add(lifeOf(victim.taskId, Math.max(1, victim.life)))
    }
    note()
    let obeyed: (well: boolean) => void = () => {}
    const ended = new Promise<boolean>((done) => {
      obeyed = done
    })
    const second = await ConductorProcess.start(
      join(programs, 'conductor-main.mjs'),
      env,
      conductorOptions,
      (event: ConductorEvent) => {
        this.#book.note(event, 'second conductor: ')
        if (event.event === 'obeyed') obeyed(event.well)
        else if (event.event === 'problem') this.#book.complain(event.taskId, event.problem)
      },
    )
    try {
      second.order({ do: 'meddle', how, taskId, run })
      const isWell = await Promise.race([ended, delay(MEDDLING_MS, true, { ref: false })])
      // It sees to the ends of what it recovered until it is killed over that.
      note()
      if (how === 'recover') await delay(dice.between(100, 4_000))
      return isWell
    } finally {
      await second.kill()
    }
  }
}
