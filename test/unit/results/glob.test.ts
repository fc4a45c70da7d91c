import { execFileSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { globMatcher } from '../../../src/results/glob.js'

const NAMES = [
  'a',
  'b',
  '1',
  '!',
  '!a',
  'a-b',
  'axb',
  ']',
  'a*',
  '[x]',
  'r (1).pdf',
  'r 1.pdf',
  '.h',
  '(',
  ')',
  'a b',
]

const GLOBS = [
  '[!a]*',
  '[!ab]',
  'a[!-]b',
  '[a!]*',
  '[]a]',
  '!a*',
  '!a',
  'r (1).pdf',
  'r (*).pdf',
  '(',
  '*)',
  '[[]x]',
  '[(]',
  'a\\*',
  'a?b',
  '*',
]

it('reads globs as a shell does', () => {
  const script = `names=$1; shift
    for g; do
      printf '%s\\0' "$names" | while IFS= read -r n; do case $n in $g) printf '%s\\n' "$n" ;; esac; done
      printf '=\\n'
    done`
  const said = execFileSync('sh', ['-c', script, 'sh', `${NAMES.join('\n')}\n`, ...GLOBS], {
    encoding: 'utf8',
  })
  const expected = said.split('=\n').map((block) => block.split('\n').filter((name) => name !== ''))
  for (const [i, glob] of GLOBS.entries()) expect(NAMES.filter(globMatcher(glob)), glob).toEqual(expected[i])
})

it('knows braces and groups', () => {
  expect(NAMES.filter(globMatcher('{a,b}'))).toEqual(['a', 'b'])
  expect(NAMES.filter(globMatcher('@(a|b)'))).toEqual(['a', 'b'])
  expect(NAMES.filter(globMatcher('r !(2|(3)).pdf'))).toEqual(['r (1).pdf', 'r 1.pdf'])
})
