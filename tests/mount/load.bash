# SPDX-License-Identifier: BSD-2-Clause
#
# For tests that put load on the mount: kill the daemon and mount again, loop devices, times. A test sources this after
# common.bash; call setup_load after setup_pool.
#
#   jobs_pids   of processes in the background; they are ended with the test
#   loop        the loop device that the last attach_loop made

jobs_pids=()
loops=()
loop=

# A device that was let go of may be somebody else's by now.
loop_is_ours() { [[ $(losetup --noheadings --output BACK-FILE "$1" 2>/dev/null) == "$TEST_DIR"/* ]]; }

# Loop devices are let go of first, which takes effect when nobody uses them any more: later what they lie on may have no name. Below a dead or
# hanging daemon nothing can be unmounted in peace: when the test fails, end it before.
load_cleanup() {
	local status=$? pid point

	trap - EXIT
	set +e
	for loop in "${loops[@]}"; do
		loop_is_ours "$loop" && losetup -d "$loop" 2>/dev/null
	done
	for pid in "${jobs_pids[@]}"; do
		kill -KILL "$pid" 2>/dev/null
	done
	[ $status -ne 0 ] && [ -n "$daemon_pid" ] && kill -KILL "$daemon_pid" 2>/dev/null
	cd /
	awk -v dir="$TEST_DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r point; do
		[ "$point" = "$MNT" ] || umount "$point" 2>/dev/null || umount -l "$point"
	done
	for pid in "${jobs_pids[@]}"; do
		wait "$pid" 2>/dev/null
	done
	(exit $status)
	cleanup
}

setup_load() {
	trap load_cleanup EXIT
}

# One message, and the number for all random choices of this run.
setup_seed() {
	VC_TEST_SEED=${VC_TEST_SEED:-$((SRANDOM % 1000000))}
	export VC_TEST_SEED
	RANDOM=$VC_TEST_SEED
	echo "seed $VC_TEST_SEED"
}

# random_ms LEAST MOST: sleep that long.
random_ms() {
	local ms=$(($1 + (RANDOM * 32768 + RANDOM) % ($2 - $1 + 1)))

	sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
}

# The daemon dies; what it served is detached.
crash_pool() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null || :
	daemon_pid=
	umount -l "$MNT" 2>/dev/null || :
}

# in_time SECONDS COMMAND...: it must succeed, and not hang.
in_time() {
	local limit=$1 status=0
	shift
	timeout -k 5 "$limit" "$@" || status=$?
	[ $status -ne 124 ] && [ $status -ne 137 ] || fail "still running after $limit s: $*"
	[ $status -eq 0 ] || fail "status $status: $*"
}

now_us() { printf '%s' "${EPOCHREALTIME/./}"; }

# took_ms COMMAND...: run it; its time in $ms.
took_ms() {
	local start
	start=$(now_us)
	"$@"
	ms=$((($(now_us) - start) / 1000))
}

# Resident memory of the daemon, in KiB.
daemon_rss() { awk '/^VmRSS/ { print $2 }' "/proc/$daemon_pid/status"; }

# LMDB's file is taken at its length: behind that lies the room that is reserved for the next checkpoint.
pool_kib() { { du -sk "$POOL/chunk" "$POOL/journal"; du -sk --apparent-size "$POOL/meta"; } | awk '{ sum += $1 } END { print sum }'; }

# As vclone destage and vclone clean do it, but never for ever.
destage_pool() { in_time 100 "$VCLONE" destage "$MNT" >>"$LOG" 2>&1; }
clean_pool() { in_time 100 "$VCLONE" clean "$MNT" >>"$LOG" 2>&1; }

need_loops() {
	[ -e /dev/loop-control ] || skip "no loop devices"
	command -v losetup mkfs.ext4 e2fsck >/dev/null || skip "losetup or e2fsprogs is missing"
}

# attach_loop FILE [off]: with direct I/O where the kernel can.
attach_loop() {
	loop=$(timeout 30 losetup --find --show --direct-io="${2:-on}" "$1") || fail "losetup $1"
	loops+=("$loop")
}

detach_loop() {
	losetup -d "$1" || fail "losetup -d $1"
	udevadm settle 2>/dev/null || :
}

# check_ext4 IMAGE: replay the journal and look; a live file system's clone may need no more than that.
check_ext4() {
	local status=0

	attach_loop "$1"
	timeout 60 e2fsck -fy "$loop" >"$TEST_DIR/e2fsck.out" 2>&1 || status=$?
	[ $status -le 1 ] || fail "$1: e2fsck -fy: status $status: $(cat "$TEST_DIR/e2fsck.out")"
	grep -q 'UNEXPECTED INCONSISTENCY\|Checksum\|checksum' "$TEST_DIR/e2fsck.out" &&
		fail "$1: more than the journal was wrong: $(cat "$TEST_DIR/e2fsck.out")"
	timeout 60 e2fsck -fn "$loop" >"$TEST_DIR/e2fsck.out" 2>&1 || fail "$1: e2fsck -fn: $(cat "$TEST_DIR/e2fsck.out")"
	detach_loop "$loop"
}
