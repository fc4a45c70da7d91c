/**
 * First process of a jail, and the last thing that sees this machine's files: it mounts the sandbox's root and steps into it.
 * Then a second user and mount namespace locks those mounts, so that not even the sandbox's root can make `/usr` writable again.
 * Arguments: mount table, mount point, and what {@link INIT} takes.
 */
export const SETUP = `set -e
read -r pid rest </proc/self/stat
mount -a -T "$1"
cd "$2"
pivot_root . .
umount -l .
cd /
exec unshare --user --map-root-user --mount -- /bin/sh -c "$3" init "$pid"`

/**
 * Process 1 of a jail. A process in the user's namespace reports both their numbers and stays until a line says that the namespace is
 * held open elsewhere. From then on process 1 only waits for its standard input to end: when the server closes it, or dies, process 1
 * ends and the kernel kills all others. No signal from within the sandbox reaches it, and as it ignores SIGCHLD the kernel buries the
 * orphans it inherits.
 */
export const INIT = `unshare --user --map-user=1000 --map-group=1000 -- /bin/sh -c 'echo "$1 $$"; read -r line' holder "$1"
exec env --ignore-signal=CHLD cat >/dev/null`

/**
 * Says which process it is, goes to the folder and becomes the command. Arguments: folder, file, its arguments.
 */
export const LAUNCH = `echo "$$" >&3
exec 3>&- 4>&- 5>&-
cd -- "$1" || exit 126
shift
exec "$@"`
