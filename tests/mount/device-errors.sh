#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A disk that begins to fail below a file system of the kernel, with the pool on it: ext4 and xfs on a loop device over a file that
# qemu-storage-daemon serves, whose driver blkdebug then lets flushes, writes or reads fail. The guest's sync tells (D4), nothing is
# acknowledged after it, reads give EIO and a message or the right bytes (D5); with a good disk again, all that was synced is there, and a prefix of
# the rest (D1, D2). device-errors.py is the guest.
#
# VC_TEST_SEED; VC_TEST_ROUNDS (2, with sanitizers 1): for each file system, each with a disk that fails to read and one that fails to write; the
# first one fails to flush, once. VC_DEVICE_FS: which file systems.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

rounds=2
has_asan && rounds=1
ROUNDS=${VC_TEST_ROUNDS:-$rounds}
GEOMETRY='--log-size=8M --log-segment=1M --segment=1M'
KINDS=(write flush write-space write-once flush-space)
options=(destage_ms=1 destage_ms=50 destage_ms=never)
server_pid=

# start_disk DIR: a good one, whose node "top" can be given another source later. The loop device must not use direct I/O: several writes
# at once would share one buffer in the FUSE export of QEMU 7.2.
start_disk() {
	local dir=$1

	: >"$dir/export"
	rm -f "$dir/qmp"
	qemu-storage-daemon --daemonize --pidfile "$dir/pid" \
		--blockdev "driver=file,node-name=image,filename=$dir/image,cache.no-flush=on" \
		--blockdev driver=raw,node-name=top,file=image \
		--export "type=fuse,id=export,node-name=top,mountpoint=$dir/export,writable=on" \
		--chardev "socket,id=control,path=$dir/qmp,server=on,wait=off" --monitor chardev=control >>"$LOG" 2>&1 ||
		skip "qemu-storage-daemon cannot export over FUSE: $(tail -n 1 "$LOG")"
	server_pid=$(cat "$dir/pid")
	jobs_pids+=("$server_pid")
	attach_loop "$dir/export" off
	in_time 60 mount -t "$type" -o noatime "$loop" "$DISK"
}

# What the kernel has in memory of the disk goes with it.
stop_disk() {
	in_time 60 umount "$DISK"
	detach_loop "$loop"
	unset "loops[-1]"
	kill -TERM "$server_pid"
	in_time 30 tail --sleep-interval=0.05 --pid="$server_pid" -f /dev/null
	unset "jobs_pids[-1]"
	server_pid=
}

guest() { in_time 60 python3 "$SRC_DIR/tests/mount/device-errors.py" "$1" "$TEST_DIR/ledger" "${@:2}"; }

# A pool that failed may say so when it is closed.
end_daemon() {
	local status=0

	in_time 30 umount "$MNT"
	in_time 30 tail --sleep-interval=0.05 --pid="$daemon_pid" -f /dev/null
	wait "$daemon_pid" || status=$?
	daemon_pid=
	[ $status -eq 0 ] || [ $status -eq 32 ] || fail "the daemon ended with status $status"
}

# fails_to_read DIR: what lies in chunk files, which the kernel has nothing of in memory.
fails_to_read() {
	start_disk "$1"
	mount_pool cache=4M
	: >"$LOG"
	guest read "$1/qmp" read
	grep -q 'image [0-9]*, offset [0-9]*' "$LOG" || fail "no message names image and offset"
	grep -q '/\(chunk\|meta\|log\)/' "$LOG" || fail "no message names the file"
	end_daemon
	stop_disk
}

# opens_or_tells [FILE]: mounts and reads what there is, or says which file it could not read; in any case it ends by itself. That is FILE, with
# a bad sector, or one that lies beside it: the kernel reads ahead on the device, and who asks for a neighbour meanwhile gets the error too.
opens_or_tells() {
	: >"$LOG"
	if try_mount_pool cache=4M; then
		guest look
		end_daemon
		return
	fi
	[ $daemon_status -ge 1 ] && [ $daemon_status -lt 128 ] || fail "the daemon ended with status $daemon_status: $(cat "$LOG")"
	grep -q "$POOL${1:+/$1}" "$LOG" || grep -q "$POOL/[^ :]*: .*Input/output error" "$LOG" || fail "no message names the file: $(cat "$LOG")"
	echo "not opened: $(head -n 1 "$LOG" | sed "s|$TEST_DIR/||g")"
}

# cannot_open DIR bad-disk|bad-sectors [N [FILE]]: while a pool is opened; what the kernel has not in memory cannot be read.
cannot_open() {
	start_disk "$1"
	guest "$2" "$1/qmp" "${@:3}"
	opens_or_tells "${@:4}"
	stop_disk
}

# cannot_read_some DIR: sectors of chunk files, of which nothing is in memory.
cannot_read_some() {
	start_disk "$1"
	mount_pool cache=4M
	guest bad-sectors "$1/qmp" 60 chunk
	: >"$LOG"
	guest look some
	grep -q 'image [0-9]*, offset [0-9]*' "$LOG" || fail "no message names image and offset"
	end_daemon
	stop_disk
}

# fails_to_write DIR KIND
fails_to_write() {
	start_disk "$1"
	mount_pool "${options[RANDOM % 3]}"
	guest write "$1/qmp" "$2"
	end_daemon
	stop_disk
}

good_again() {
	start_disk "$1"
	want 0 "$VCLONE" check --data --log "$POOL" >>"$LOG" 2>&1
	mount_pool "${options[RANDOM % 3]}"
	guest verify
	destage_pool
	unmount_pool
	stop_disk
}

# 300 MiB is the least that mkfs.xfs makes.
one_system() {
	local dir=$TEST_DIR/$type round kind

	mkdir "$dir"
	truncate -s 320M "$dir/image"
	case $type in
	ext4) mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -J size=8 "$dir/image" ;;
	xfs) mkfs.xfs -q -f -K "$dir/image" ;;
	*) fail "VC_DEVICE_FS: $type?" ;;
	esac >>"$LOG" 2>&1 || fail "mkfs.$type"
	start_disk "$dir"
	# shellcheck disable=SC2086
	"$VCLONE" init $GEOMETRY "$POOL" >>"$LOG" 2>&1 || fail "vclone init"
	stop_disk
	rm -f "$TEST_DIR/ledger"
	for ((round = 1; round <= ROUNDS; round++)); do
		export ROUND=$round
		[ $round -eq 1 ] && kind=flush-once || kind=${KINDS[(VC_TEST_SEED + round) % 5]}
		fails_to_write "$dir" "$kind"
		good_again "$dir"
		fails_to_read "$dir"
		cannot_read_some "$dir"
		cannot_open "$dir" bad-sectors 1
		[ $round -gt 1 ] || cannot_open "$dir" bad-disk
		cannot_open "$dir" bad-sectors 1 meta/lock.mdb
		cannot_open "$dir" bad-sectors 3 meta/data.mdb
	done
	good_again "$dir"
	rm -rf --one-file-system "$dir"
	echo "$type: $ROUNDS rounds, ${SECONDS}s since the beginning"
}

[ "$(id -u)" = 0 ] || skip "must be root to mount"
[ -c /dev/fuse ] || skip "no /dev/fuse"
command -v qemu-storage-daemon >/dev/null || skip "qemu-storage-daemon is missing (package qemu-system-common)"
command -v mkfs.xfs >/dev/null || skip "mkfs.xfs is missing"
need_loops

TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vclonefs-test.XXXXXX")
chmod 755 "$TEST_DIR"
LOG=$TEST_DIR/messages DISK=$TEST_DIR/host POOL=$TEST_DIR/host/pool MNT=$TEST_DIR/mnt
mkdir "$DISK" "$MNT"
: >"$LOG"
trap load_cleanup EXIT
trap 'exit 129' HUP INT TERM
qemu-storage-daemon --daemonize --pidfile "$TEST_DIR/pid" --blockdev driver=null-co,node-name=null,read-zeroes=on \
	--blockdev driver=blkdebug,node-name=bad,image=null >>"$LOG" 2>&1 || skip "qemu-storage-daemon has no blkdebug: $(tail -n 1 "$LOG")"
kill -TERM "$(cat "$TEST_DIR/pid")"
setup_seed
export MNT POOL
for type in ${VC_DEVICE_FS:-ext4 xfs}; do
	one_system
done
