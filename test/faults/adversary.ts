import { type Action, MOVES, type Targets } from './moves.js'
import { Dice } from './random.js'
import type { World } from './world.js'

/** Outcomes between two moves, on average, in a round that is long enough. */
const PAUSE = 19

/** What an adversary is to do. */
export interface AdversaryOptions {
  readonly seed: number
  /** Of the round: it gets through all its moves in a short one too. */
  readonly operations: number
  /** What is left out, and why. */
  readonly without: ReadonlyMap<string, string>
}

/** Breaks what is around the workers. Its decisions come from the seed; whom they hit, and when, depends on timing. */
export class Adversary {
  readonly #seed: number
  readonly #world: World
  readonly #targets: Targets
  readonly #meanPause: number
  readonly #actions: readonly Action[]
  readonly #busy = new Set<string>()
  readonly #under = new Set<Promise<void>>()
  /** Each move comes once before any comes by chance, and again until it was felt. */
  readonly #owed: Action[]
  /** How often each was begun, and how often it was felt. */
  readonly planned: Record<string, number> = {}
  readonly faults: Record<string, number> = {}
  /** Why moves were not made. */
  readonly notDone: Map<string, string>
  #outcomes = 0
  #moves = 0
  #nextAt: number
  #over = false

  constructor({ seed, operations, without }: AdversaryOptions, world: World, targets: Targets) {
    this.#seed = seed
    this.#world = world
    this.#targets = targets
    this.notDone = new Map(without)
    this.#actions = (Object.keys(MOVES) as Action[]).filter((action) => !without.has(action))
    this.#owed = shuffled(this.#actions, new Dice(seed, 'owed'))
    this.#meanPause = Math.min(PAUSE, operations / (1.3 * this.#actions.length))
    this.#nextAt = this.#pause()
  }

  /** Moves that nobody has felt yet. */
  get owed(): readonly Action[] {
    return this.#actions.filter((action) => (this.faults[action] ?? 0) === 0)
  }

  /** Called with each outcome: time is counted in what workers get done, so that a seed means much the same on any machine. */
  tick(): void {
    if (this.#over || ++this.#outcomes < this.#nextAt) return
    this.#moves++
    this.#nextAt = this.#outcomes + this.#pause()
    const dice = new Dice(this.#seed, 'action', this.#moves)
    const action = this.#choose(dice)
    if (action === undefined) return
    const { things } = MOVES[action]
    for (const thing of things) this.#busy.add(thing)
    this.planned[action] = (this.planned[action] ?? 0) + 1
    const under = this.#make(action, dice).finally(() => {
      for (const thing of things) this.#busy.delete(thing)
      this.#under.delete(under)
    })
    this.#under.add(under)
  }

  /** Starts nothing more and waits until all is whole again. */
  async end(): Promise<void> {
    this.#over = true
    await Promise.all(this.#under)
  }

  /** What is broken already is not broken again at the same time. */
  #choose(dice: Dice): Action | undefined {
    const isFree = (action: Action): boolean => !MOVES[action].things.some((thing) => this.#busy.has(thing))
    const owed = this.#owed.findIndex(isFree)
    if (owed >= 0) return this.#owed.splice(owed, 1)[0]
    const action = dice.weighted(this.#actions.map((name) => [name, MOVES[name].weight] as const))
    return isFree(action) ? action : undefined
  }

  async #make(action: Action, dice: Dice): Promise<void> {
    try {
      if (await MOVES[action].do(this.#world, this.#targets, dice)) {
        this.faults[action] = (this.faults[action] ?? 0) + 1
        return
      }
    } catch (error) {
      // What it was to hit may have ended, or be cut off by another fault; a server that does not come back is seen anyway.
      this.notDone.set(`${action} (once or more)`, String(error).split('\n')[0] ?? '')
    }
    if ((this.faults[action] ?? 0) === 0) this.#owed.push(action)
  }

  #pause(): number {
    const dice = new Dice(this.#seed, 'pause', this.#moves)
    return Math.max(1, Math.round(this.#meanPause * (0.4 + 1.2 * dice.fraction())))
  }
}

function shuffled<T>(values: readonly T[], dice: Dice): T[] {
  return values
    .map((value) => ({ value, at: dice.fraction() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value)
}
