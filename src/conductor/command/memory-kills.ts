import { quote } from '../../sandbox/quote.js'

/** Where the kernel counts whom it killed for memory: in this sandbox's own group, else in the whole machine, which a sandbox of E2B is. */
const COUNTERS = [
  '/sys/fs/cgroup/memory.events',
  '/sys/fs/cgroup/memory/memory.oom_control',
  '/proc/vmstat',
] as const
const UPTIME = '/proc/uptime'

/** The kernel's files; others stand in for them in tests. */
export interface KernelFiles {
  readonly counters: readonly string[]
  readonly uptime: string
}

const KERNEL: KernelFiles = { counters: COUNTERS, uptime: UPTIME }

/** Leaves the count in `kills`. Without a single process of its own, since it comes before each command. */
function countKills({ counters }: KernelFiles): string {
  return `kills=
for f in ${counters.map(quote).join(' ')}; do
  [ -z "$kills" ] && [ -r "$f" ] || continue
  while read -r word n; do if [ "$word" = oom_kill ]; then kills=$n; fi; done <"$f"
done`
}

/** Shell that writes down, into a file, how it stands before a command. */
export function noteKills(file: string, kernel = KERNEL): string {
  return `${countKills(kernel)}
read -r up _ 2>/dev/null <${quote(kernel.uptime)}
{ echo "\${kills:-0} \${up:-0}" >${quote(file)}; } 2>/dev/null`
}

/** Shell that tells, a line each, of kills since that was written down; of all there were where it was not. */
export function tellKills(file: string, kernel = KERNEL): string {
  return `${countKills(kernel)}
was=0 since=0
read -r was since 2>/dev/null <${quote(file)}
case $was in '' | *[!0-9]*) was=0 ;; esac
if [ "\${kills:-0}" -gt "$was" ]; then echo "oom_kill $((kills - was)) since the command began"; fi
dmesg 2>/dev/null | grep -i 'killed process' |
  awk -v since="$since" '{ at = $0; sub(/^\\[ */, "", at); if (at + 0 >= since + 0) print }' |
  tail -n 3 | cut -c 1-200`
}
