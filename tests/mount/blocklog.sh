#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Power cuts below a file system of the kernel: the pool lies on ext4 and on xfs, whose disk is served by qemu-storage-daemon and
# writes down every write and flush. From that log, disks are made as a power cut at any moment could have left them; the kernel
# mounts them, the pool recovers, and must hold every acknowledged flush and a prefix of the rest (D1, D2, D3). See
# tests/power/blocklog.c, which does the work; this makes the disks.
#
# VC_TEST_SEED; VC_BLOCKLOG_FS: which file systems; VC_BLOCKLOG_STATES: how many cuts for each. After a finding, the same
# seed with VC_BLOCKLOG_ONLY=<number of the cut> repeats it (as far as threads come in the same order).
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

STATES=${VC_BLOCKLOG_STATES:-120}
ROUND_MAX=250 # states of one history
PROGRAM=$BUILD_DIR/tests/power/blocklog
server_pid=

# blklogwrites over a plain file, as a file through FUSE, as a loop device: a flush of the device passes through all of them as
# fsync, and becomes an entry of the log. What the host would have to sync itself is not at stake: no-flush. The loop device
# must not use direct I/O: several writes at once would share one buffer in the FUSE export of QEMU 7.2.
start_disk() {
	local dir=$1

	: >"$dir/log"
	: >"$dir/export"
	qemu-storage-daemon --daemonize --pidfile "$dir/pid" \
		--blockdev "driver=file,node-name=image,filename=$dir/image,cache.no-flush=on" \
		--blockdev "driver=file,node-name=log,filename=$dir/log,cache.no-flush=on" \
		--blockdev driver=blklogwrites,node-name=recorded,file=image,log=log \
		--export "type=fuse,id=export,node-name=recorded,mountpoint=$dir/export,writable=on" >>"$LOG" 2>&1 ||
		skip "qemu-storage-daemon cannot export over FUSE: $(tail -n 1 "$LOG")"
	server_pid=$(cat "$dir/pid")
	jobs_pids+=("$server_pid")
	attach_loop "$dir/export" off
}

# 300 MiB is the least that mkfs.xfs makes. Discards would only be zeros in the log.
make_fs() {
	case $1 in
	ext4) mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -J size=8 "$2" ;;
	xfs) mkfs.xfs -q -f -K "$2" ;;
	*) fail "VC_BLOCKLOG_FS: $1?" ;;
	esac
}

# run_round FSTYPE STATES
run_round() {
	local type=$1 dir=$TEST_DIR/$type

	mkdir "$dir" "$dir/mnt" "$dir/state"
	truncate -s 320M "$dir/image"
	make_fs "$type" "$dir/image" >>"$LOG" 2>&1 || fail "mkfs.$type"
	cp --sparse=always "$dir/image" "$dir/before"
	start_disk "$dir"
	in_time 60 mount -t "$type" -o noatime "$loop" "$dir/mnt"
	VC_BLOCKLOG_STATES=$2 in_time 1000 "$PROGRAM" "$dir" "$type" "$loop" "$server_pid"
	rm -rf --one-file-system "$dir"
}

[ "$(id -u)" = 0 ] || skip "must be root to mount"
[ -c /dev/fuse ] || skip "no /dev/fuse"
command -v qemu-storage-daemon >/dev/null || skip "qemu-storage-daemon is missing (package qemu-system-common)"
command -v mkfs.xfs >/dev/null || skip "mkfs.xfs is missing"
need_loops
[ -x "$PROGRAM" ] || skip "tests/power/blocklog was not built (it needs cmocka)"
has_asan && skip "only without sanitizers"

TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vclonefs-test.XXXXXX")
LOG=$TEST_DIR/messages
: >"$LOG"
trap load_cleanup EXIT
trap 'exit 129' HUP INT TERM
setup_seed
for type in ${VC_BLOCKLOG_FS:-ext4 xfs}; do
	for ((left = STATES; left > 0; left -= ROUND_MAX)); do
		run_round "$type" $((left < ROUND_MAX ? left : ROUND_MAX))
		VC_TEST_SEED=$((VC_TEST_SEED + 1))
	done
done
