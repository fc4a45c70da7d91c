# Read by bash before the shell persister: kills the process group before the simple command that it is told, or notes
# them all. A subshell goes on with its parent's count, so a command is named by the depth and the count.
set -T
lab_count=0
lab_step() {
  lab_count=$((lab_count + 1))
  if [ -n "${LAB_STEPS-}" ]; then
    printf '%s\n' "$BASH_SUBSHELL:$lab_count" >>"$LAB_STEPS"
  elif [ "${LAB_KILL_AT-}" = "$BASH_SUBSHELL:$lab_count" ]; then
    kill -KILL -$$
  fi
}
trap lab_step DEBUG
lab_program=$1
shift
. "$lab_program"
