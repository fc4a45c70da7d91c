/** What has to be undone at the end, in the reverse order; each is tried, and the first failure is thrown. */
export class Cleanup implements AsyncDisposable {
  readonly #steps: (() => Promise<unknown>)[] = []

  defer(step: () => Promise<unknown>): void {
    this.#steps.push(step)
  }

  use<T extends AsyncDisposable>(thing: T): T {
    this.defer(() => Promise.resolve(thing[Symbol.asyncDispose]()))
    return thing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const failures: unknown[] = []
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        await step()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }
}
