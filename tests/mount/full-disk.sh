#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# D8 on a small disk of its own, ext4 and xfs: filled by writing, and from outside while the pool works. Every error is ENOSPC, the pool
# never fails, everything accepted is there, also after a kill and a mount while full; deleting works, and writing again after a clean.
#
# VC_TEST_ROUNDS: cycles on each file system. FS: which, both if not given.
set -euo pipefail
. "$(dirname "$0")/common.bash"

cycles=${VC_TEST_ROUNDS:-1}
LOOP=
POOL_OPTIONS='--log-size=8M --log-segment=1M --segment=1M'

undo_disk() {
	local status=$?

	trap - EXIT
	set +e
	[ -n "$daemon_pid" ] && kill -KILL "$daemon_pid" 2>/dev/null
	umount -l "$MNT" 2>/dev/null
	umount -l "$DISK" 2>/dev/null
	[ -n "$LOOP" ] && losetup -d "$LOOP" 2>/dev/null
	(exit $status)
	cleanup
}

full() {
	python3 "$SRC_DIR/tests/mount/full-disk.py" "$MNT" "$DISK" "$TEST_DIR/state" "$@"
}

not_failed() {
	"$VCLONE" df --json "$MNT" | python3 -c 'import json, sys
d = json.load(sys.stdin)
sys.exit(1 if d.get("failed") else 0)' || fail "the pool failed"
}

# What lies in the log when the last byte of the disk goes to somebody else needs new chunk files and room in LMDB's.
accepted_then_full() {
	full fill d 2500000 4096 >/dev/null
	full foreign
	want 0 "$VCLONE" destage "$MNT"
	not_failed
	full verify
	full delete d
	rm -f "$DISK/foreign"
	want 0 "$VCLONE" clean "$MNT"
}

one_cycle() {
	local n

	accepted_then_full
	n=$(full fill "a" 400000000 65536)
	[ "$n" -lt 400000000 ] || fail "the disk was never full"
	full fill "b" 400000000 4096 >/dev/null
	not_failed
	full verify
	full foreign
	want 0 "$VCLONE" destage "$MNT"
	full fill "b" 400000000 8192 >/dev/null
	not_failed
	kill -KILL $daemon_pid
	wait $daemon_pid || :
	umount -l "$MNT"
	mount_pool destage_ms=3600000
	full foreign
	full verify
	full delete a
	want 0 "$VCLONE" clean "$MNT"
	not_failed
	n=$(full fill "c" 4000000 4096) # what the delete gave back is enough, whoever else has the rest
	[ "$n" -ge 4000000 ] || fail "nothing can be written after deleting: $n bytes"
	full verify
	full delete b
	full delete c
	rm -f "$DISK/foreign"
	want 0 "$VCLONE" clean "$MNT"
	not_failed
}

one_system() {
	local i

	rm -f "$TEST_DIR/disk"
	truncate -s "$2" "$TEST_DIR/disk"
	"mkfs.$1" -q "$TEST_DIR/disk"
	LOOP=$(losetup -f --show "$TEST_DIR/disk")
	mount "$LOOP" "$DISK"
	fallocate -l "$3" "$DISK/filler" # the smallest xfs there is would take long to fill
	POOL=$DISK/pool
	# shellcheck disable=SC2086
	"$VCLONE" init $POOL_OPTIONS "$POOL" >>"$LOG" 2>&1 || fail "vclone init"
	rm -f "$TEST_DIR/state"
	mount_pool destage_ms=3600000
	for i in $(seq "$cycles"); do
		one_cycle
	done
	unmount_pool
	want 0 "$VCLONE" check --data "$POOL" >>"$LOG"
	umount "$DISK"
	losetup -d "$LOOP"
	LOOP=
	echo "$1: $cycles cycles, ${SECONDS}s since the beginning"
}

INIT=$POOL_OPTIONS POOL_OPTIONS=
setup_pool
POOL_OPTIONS=$INIT
DISK=$TEST_DIR/host
mkdir "$DISK"
trap undo_disk EXIT
losetup -f >/dev/null 2>&1 || skip "no loop device"
case ${FS:-ext4} in *ext4*) one_system ext4 80M 8M ;; esac
case ${FS:-xfs} in *xfs*) ;; *) exit 0 ;; esac
if command -v mkfs.xfs >/dev/null && grep -qw xfs /proc/filesystems; then
	one_system xfs 320M 170M
else
	echo "xfs: not here, left out"
fi
