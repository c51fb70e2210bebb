# SPDX-License-Identifier: BSD-2-Clause
#
# What the tests with a mount share. A test sources this, then calls setup_pool and mount_pool; whatever happens
# afterwards, its mounts, processes and files are gone when it ends.
#
#   BUILD_DIR   the built programs       SRC_DIR   the sources (default: where this file is)
#   TEST_DIR    a private directory      POOL MNT  the pool and its mount point in it
#   daemon_pid  of the mounted pool      LOG       what the daemon printed
#
# Exit status: 0 passed, 77 skipped (the last line says why), everything else failed.

: "${BUILD_DIR:?the directory of the built programs}"
SRC_DIR=${SRC_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)}
VCLONEFS=$BUILD_DIR/vclonefs
VCLONE=$BUILD_DIR/vclone
TEST_DIR= POOL= MNT= LOG= daemon_pid=
export PYTHONPATH=$SRC_DIR/tests/mount PYTHONDONTWRITEBYTECODE=1

skip() {
	echo "$*"
	exit 77
}

# Was the build made with the address sanitizer?
has_asan() { grep -q __asan_init "$VCLONEFS"; }

exec {stderr}>&2 # of the test, whatever is redirected where it fails

fail() {
	{
		echo "FAILED at ${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]} (called from line ${BASH_LINENO[1]}): $*"
		if [ -s "$LOG" ]; then
			echo "--- the daemon's last lines ---"
			tail -n 20 "$LOG"
		fi
	} >&$stderr
	exit 1
}

# want STATUS COMMAND...: the exit status must be that.
want() {
	local status=$1 got=0
	shift
	"$@" || got=$?
	[ $got -eq "$status" ] || fail "status $got instead of $status: $*"
}

cleanup() {
	local status=$?

	trap - EXIT
	set +e
	cd /
	while [ -n "$MNT" ] && grep -q " $MNT " /proc/self/mounts; do
		fusermount3 -uzq "$MNT" 2>/dev/null || umount -l "$MNT" 2>/dev/null || break
	done
	if [ -n "$daemon_pid" ]; then
		kill -TERM "$daemon_pid" 2>/dev/null
		for _ in $(seq 200); do
			kill -0 "$daemon_pid" 2>/dev/null || break
			sleep 0.05
		done
		kill -KILL "$daemon_pid" 2>/dev/null
		wait "$daemon_pid" 2>/dev/null
	fi
	[ -n "$TEST_DIR" ] && rm -rf --one-file-system -- "$TEST_DIR"
	exit $status
}

setup_pool() {
	[ "$(id -u)" = 0 ] || skip "must be root to mount"
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	command -v python3 >/dev/null || skip "no python3"
	[ -x "$VCLONEFS" ] || fail "$VCLONEFS is missing"
	TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vclonefs-test.XXXXXX")
	trap cleanup EXIT
	trap 'exit 129' HUP INT TERM
	chmod 755 "$TEST_DIR"
	POOL=$TEST_DIR/pool MNT=$TEST_DIR/mnt LOG=$TEST_DIR/log
	mkdir "$MNT"
	: >"$LOG"
	"$VCLONE" init ${POOL_OPTIONS:-} "$POOL" >>"$LOG" 2>&1 || fail "vclone init: status $?"
}

# try_mount_pool [option,...]; DAEMON_FLAGS: further arguments, such as -d; MOUNT_OPTIONS: further options. Returns 1 when the daemon gives up,
# with its exit status in daemon_status (137: it had to be killed).
try_mount_pool() {
	"$VCLONEFS" -f ${DAEMON_FLAGS:-} -o "allow_other${MOUNT_OPTIONS:+,$MOUNT_OPTIONS}${1:+,$1}" "$POOL" "$MNT" >>"$LOG" 2>&1 &
	daemon_pid=$!
	for _ in $(seq 600); do
		mountpoint -q "$MNT" && return 0
		kill -0 $daemon_pid 2>/dev/null || break
		sleep 0.05
	done
	kill -KILL $daemon_pid 2>/dev/null || :
	daemon_status=0
	wait $daemon_pid || daemon_status=$?
	daemon_pid=
	return 1
}

mount_pool() {
	try_mount_pool "$@" || fail "no mount"
}

# The daemon must end well, which means in a build with sanitizers: without a report.
wait_for_daemon() {
	local status=0

	wait $daemon_pid || status=$?
	daemon_pid=
	[ $status -eq 0 ] || fail "the daemon ended with status $status"
}

unmount_pool() {
	umount "$MNT" || fail "umount"
	wait_for_daemon
}

# remount_pool [option,...]: whatever was acknowledged must be there again.
remount_pool() {
	unmount_pool
	mount_pool "$@"
}
