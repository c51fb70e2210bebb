# SPDX-License-Identifier: BSD-2-Clause
#
# A User-Mode Linux guest whose root is ours read-only, for tests that need a kernel of their own. A test sources this after common.bash,
# calls setup_guest, then boot_guest as often as it likes; the guest ends with the test.
#
#   TEST_DIR    a private directory, in memory if that is possible     LOG   the guest's console
#   guest       the guest that runs: all of its processes are this session

guest=

# In memory: neither what the guest flushes nor what it tells us needs the host's disk.
guest_make_dir() {
	local base=${TMPDIR:-/tmp}

	[ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] && [ -w /dev/shm ] && base=/dev/shm
	TEST_DIR=$(mktemp -d "$base/vclonefs-test.XXXXXX")
	LOG=$TEST_DIR/console
	: >"$LOG"
}

guest_cleanup() {
	local status=$?

	trap - EXIT
	set +e
	[ -z "$guest" ] || kill -KILL -- "-$guest" 2>/dev/null
	(exit $status)
	cleanup
}

setup_guest() {
	[ "$(id -u)" = 0 ] || skip "must be root to mount in the guest"
	command -v linux.uml >/dev/null || skip "linux.uml is missing (package user-mode-linux)"
	[ -x "$BUILD_DIR/tests/power/powerguest" ] || skip "tests/power/powerguest was not built (it needs cmocka)"
	has_asan && skip "only without sanitizers"
	guest_make_dir
	trap guest_cleanup EXIT
	trap 'exit 129' HUP INT TERM
}

# boot_guest DISK INIT [VAR=value...]: with that disk as /dev/ubda, that script of tests/power as its first process, and these variables.
boot_guest() {
	local disk=$1 init=$2
	shift 2
	TMPDIR=$TEST_DIR setsid linux.uml mem=192M ubd0="$disk" root=/dev/root rootfstype=hostfs rootflags=/ ro quiet \
		con=null con0=null,fd:1 ssl=null uml_dir="$TEST_DIR/uml" init="$SRC_DIR/tests/power/$init" VC_BUILD="$BUILD_DIR" "$@" \
		</dev/null >>"$LOG" 2>&1 &
	guest=$!
}

kill_guest() {
	[ -n "$guest" ] || return 0
	kill -KILL -- "-$guest" 2>/dev/null || :
	wait "$guest" 2>/dev/null || :
	for _ in $(seq 200); do
		pgrep -s "$guest" >/dev/null || break
		sleep 0.05
	done
	pgrep -s "$guest" >/dev/null && fail "the guest does not die"
	guest=
}
