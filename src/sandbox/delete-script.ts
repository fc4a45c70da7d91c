import { RECORD_SUFFIX } from '../protocol/key.js'
import { SPOOL_FOLDERS } from '../protocol/spool-layout.js'
import { quote } from './quote.js'

/** How the script of {@link deleteScript} ends when it has deleted nothing. */
export const DELETE_EXIT = { absent: 81, held: 82 } as const

/** How often a held marker is looked at again, and how many times: long enough for a small upload to end. */
const LOOK_AGAIN_S = 0.2
const MAX_LOOKS = 50

/**
 * A shell script that removes one result from a spool: it waits until nobody living delivers it, takes the pending marker so that
 * nobody begins to, and removes record, bytes and marker in this order.
 */
export function deleteScript(folder: string, fileName: string): string {
  return `cd -- ${quote(folder)} 2>/dev/null || exit ${DELETE_EXIT.absent}
f=${quote(fileName)}
m=${SPOOL_FOLDERS.pending}/$f
[ -e "$f" ] || [ -L "$f" ] || [ -e "$f${RECORD_SUFFIX}" ] || { rm -f -- "$m" 2>/dev/null; exit ${DELETE_EXIT.absent}; }
start_of() {
  { read -r l <"/proc/$1/stat"; } 2>/dev/null || return 1
  l=\${l##*) }
  case $l in [ZX]*) return 1 ;; esac
  set -- $l
  started=\${20}
}
boot=
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
here="$boot $(readlink /proc/self/ns/pid 2>/dev/null)"
held() {
  [ -f "$m" ] && [ ! -L "$m" ] || return 1
  o=
  { read -r o <"$m"; } 2>/dev/null
  case $o in *'"pid":'*'"start":"'*'"place":"'*) ;; *) return 1 ;; esac
  pid=\${o#*'"pid":'}; pid=\${pid%%[!0-9]*}
  start=\${o#*'"start":"'}; start=\${start%%'"'*}
  place=\${o#*'"place":"'}; place=\${place%%'"'*}
  if [ "$place" = "$here" ]; then start_of "$pid" && [ "$started" = "$start" ]
  else [ -n "$(find "$m" -mmin -1 2>/dev/null)" ]; fi
}
i=0
while held; do
  i=$((i + 1))
  [ $i -le ${MAX_LOOKS} ] || exit ${DELETE_EXIT.held}
  sleep ${LOOK_AGAIN_S}
done
if [ -d ${SPOOL_FOLDERS.pending} ]; then
  start_of $$
  printf '{"pid":%d,"start":"%s","place":"%s"}' $$ "$started" "$here" >"$m"
fi
rm -f -- "$f${RECORD_SUFFIX}" && rm -f -- "$f" && rm -f -- "$m"
`
}
