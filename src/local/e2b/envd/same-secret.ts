import { timingSafeEqual } from 'node:crypto'

/** Compares secrets without telling how much of them was right. */
export function sameSecret(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)]
  return a.length === b.length && timingSafeEqual(a, b)
}
