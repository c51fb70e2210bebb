#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon and the tools without memory: one allocation in a hundred, or in 500, fails at random, those of libfuse and of the C library among them, while a
# client works. Nothing crashes; errors are ENOMEM, or those of a pool that failed for it; what was acknowledged is there as soon as memory
# is, and after the next mount.
#
# VC_TEST_SEED, VC_TEST_ROUNDS.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

ROUNDS=${VC_TEST_ROUNDS:-16}
PRELOAD=$BUILD_DIR/tests/mount/alloc-fail.so
RATES=(655 130) # of 65536
[ -f "$PRELOAD" ] || skip "tests/mount/alloc-fail.so was not built"
has_asan && skip "only without sanitizers, which have an allocator of their own"
POOL_OPTIONS='--log-size=8M --log-segment=1M --segment=1M'
setup_pool
setup_load
setup_seed
export MNT VC_ALLOC_FAIL=$TEST_DIR/control
head -c 8 /dev/zero >"$VC_ALLOC_FAIL"
printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$PRELOAD" "$VCLONEFS" >"$TEST_DIR/vclonefs"
chmod 755 "$TEST_DIR/vclonefs"
VCLONEFS=$TEST_DIR/vclonefs

client() { in_time 60 python3 "$SRC_DIR/tests/mount/alloc-fail.py" "$1" "$TEST_DIR/state" "${@:2}"; }

# Mounted or not: it does its work, or says what is missing.
tools() {
	local status i command=("$@")

	printf '\x00\x08\x00\x00' | dd of="$VC_ALLOC_FAIL" conv=notrunc status=none # 1 in 32
	for i in $(seq 15); do
		status=0
		LD_PRELOAD=$PRELOAD timeout 30 "$VCLONE" "${command[@]}" >"$TEST_DIR/out" 2>&1 || status=$?
		[ $status -lt 124 ] || fail "vclone ${command[*]}: status $status: $(cat "$TEST_DIR/out")"
	done
	head -c 4 /dev/zero | dd of="$VC_ALLOC_FAIL" conv=notrunc status=none
}

for ((round = 1; round <= ROUNDS; round++)); do
	VC_TEST_SEED=$((VC_TEST_SEED + 1))
	mount_pool destage_ms=20
	client work "$VC_ALLOC_FAIL" "${RATES[round % 2]}"
	kill -0 "$daemon_pid" || fail "the daemon has died"
	in_time 30 umount "$MNT"
	status=0
	wait "$daemon_pid" || status=$?
	daemon_pid=
	[ $status -eq 0 ] || [ $status -eq 32 ] || fail "the daemon ended with status $status"
	mount_pool
	client settle
	unmount_pool
	want 0 "$VCLONE" check --data "$POOL" >>"$LOG" 2>&1
done
tools check "$POOL"
mount_pool
tools df "$MNT"
tools list "$MNT"
client verify
unmount_pool
