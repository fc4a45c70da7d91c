/** Whether everything runs: `npm run test:all`. Without, each suite runs where it differs most, so that all of them take minutes. */
export const thorough = Boolean(process.env.TEST_ALL)

/** All of them, or the given few. */
export function choose<T>(
  all: readonly T[],
  few: (one: T, index: number, all: readonly T[]) => boolean,
): readonly T[] {
  return thorough ? all : all.filter(few)
}

/** For {@link choose}: the first one, of servers this project's own. */
export function first(_one: unknown, index: number): boolean {
  return index === 0
}

/** For {@link choose}: the last one, of servers the strictest there is. */
export function last<T>(_one: T, index: number, all: readonly T[]): boolean {
  return index === all.length - 1
}
