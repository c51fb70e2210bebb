#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# D8 on a small disk of its own, ext4 and xfs: filled by writing, and from outside while the pool works. Every error is ENOSPC, the pool
# never fails, everything accepted is there, also after a kill and a mount while full; deleting works, and writing again after a clean.
#
# FS: which file systems; ext4-project, xfs-project, xfs-group and xfs-user are large ones where a quota is what ends (tests/mount/quota.sh).
# DEVICE: the disk, instead of a loop device. VC_TEST_ROUNDS: cycles on each file system; VC_TEST_CYCLES: of the short ones, which only fill, delete
# and fill again (50 where no quota is, with sanitizers 5).
set -euo pipefail
. "$(dirname "$0")/common.bash"

cycles=${VC_TEST_ROUNDS:-1}
short=50
has_asan && short=5
LOOP=
POOL_OPTIONS='--log-size=8M --log-segment=1M --segment=1M'
LIMITED=7 # the project or group with a quota; the user is nobody
NOBODY=65534

undo_disk() {
	local status=$?

	trap - EXIT
	set +e
	[ -n "$daemon_pid" ] && kill_daemon 2>/dev/null
	umount -l "$DISK" 2>/dev/null
	[ -n "$LOOP" ] && losetup -d "$LOOP" 2>/dev/null
	(exit $status)
	cleanup
}

full() {
	python3 "$SRC_DIR/tests/mount/full-disk.py" "$MNT" "$HOST" "$TEST_DIR/state" "$@"
}

foreign() {
	"${as_limited[@]}" python3 "$SRC_DIR/tests/mount/full-disk.py" "$MNT" "$HOST" "$TEST_DIR/state" foreign
}

not_failed() {
	"$VCLONE" df --json "$MNT" | python3 -c 'import json, sys
d = json.load(sys.stdin)
sys.exit(1 if d.get("failed") else 0)' || fail "the pool failed"
}

# With privileges given up there are two processes.
kill_daemon() {
	local other

	other=$(pgrep -P "$daemon_pid") || :
	# shellcheck disable=SC2086
	kill -KILL "$daemon_pid" $other
	wait "$daemon_pid" 2>/dev/null || :
	# shellcheck disable=SC2086
	while [ -n "$other" ] && kill -0 $other 2>/dev/null; do
		sleep 0.01
	done
	daemon_pid=
	umount -l "$MNT"
}

# What lies in the log when the last byte of the disk goes to somebody else needs new chunk files and room in LMDB's; names without end
# are refused before they have that room.
accepted_then_full() {
	local n

	full fill d 2500000 4096 >/dev/null
	foreign
	want 0 "$VCLONE" destage "$MNT"
	n=$(full names)
	[ "$n" -ge 1 ] || fail "no room for names: $n"
	want 0 "$VCLONE" destage "$MNT"
	full nameless
	want 0 "$VCLONE" destage "$MNT"
	not_failed
	full verify
	full delete d
	rm -f "$HOST/foreign"
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
	foreign
	want 0 "$VCLONE" destage "$MNT"
	full fill "b" 400000000 8192 >/dev/null
	not_failed
	kill_daemon
	mount_pool destage_ms=3600000
	foreign
	full verify
	full delete a
	want 0 "$VCLONE" clean "$MNT"
	not_failed
	n=$(full fill "c" 4000000 4096) # what the delete gave back is enough, whoever else has the rest
	[ "$n" -ge 4000000 ] || fail "nothing can be written after deleting: $n bytes"
	full verify
	full delete b
	full delete c
	rm -f "$HOST/foreign"
	want 0 "$VCLONE" clean "$MNT"
	not_failed
}

# With so little room that filling it takes no time.
short_cycles() {
	local room

	room=$(df --output=avail -B1M "$DISK" | tail -n 1)
	[ "$room" -le 16 ] || fallocate -l "$((room - 16))M" "$DISK/filler2"
	VCLONE=$VCLONE full cycles "${VC_TEST_CYCLES:-$short}" || fail "a short cycle"
	not_failed
}

# What is below HOST may take that much. Of ext4's quotas CAP_SYS_RESOURCE is free, of those of users and groups xfs tells statfs nothing.
limit() {
	case $1 in
	project) xfs_quota -f -x -c "project -s -p $HOST $LIMITED" -c "limit -p bhard=$2 $LIMITED" "$DISK" ;;
	group)
		chgrp $LIMITED "$HOST"
		chmod g+s "$HOST"
		xfs_quota -f -x -c "limit -g bhard=$2 $LIMITED" "$DISK"
		;;
	user)
		chown $NOBODY "$HOST"
		xfs_quota -f -x -c "limit -u bhard=$2 $NOBODY" "$DISK"
		;;
	esac >>"$LOG"
}

make_disk() {
	local type=$1 quota=$2

	if [ -z "${DEVICE:-}" ]; then
		rm -f "$TEST_DIR/disk"
		truncate -s "$3" "$TEST_DIR/disk"
		LOOP=$(losetup -f --show "$TEST_DIR/disk")
	fi
	case $type$quota in
	ext4project) mkfs.ext4 -q -O quota,project -E quotatype=prjquota "${DEVICE:-$LOOP}" ;;
	ext4*) mkfs.ext4 -q "${DEVICE:-$LOOP}" ;;
	xfs*) mkfs.xfs -q -f "${DEVICE:-$LOOP}" ;;
	esac
	case $quota in
	project) mount -t "$type" -o prjquota "${DEVICE:-$LOOP}" "$DISK" ;;
	group) mount -t "$type" -o grpquota "${DEVICE:-$LOOP}" "$DISK" ;;
	user) mount -t "$type" -o usrquota "${DEVICE:-$LOOP}" "$DISK" ;;
	*) mount -t "$type" "${DEVICE:-$LOOP}" "$DISK" ;;
	esac
}

# one_system TYPE[-QUOTA] SIZE TAKEN: of the disk, or LIMIT.
one_system() {
	local type=${1%-*} quota= i

	case $1 in *-*) quota=${1#*-} ;; esac
	make_disk "$type" "$quota" "$2"
	HOST=$DISK/host POOL=$DISK/host/pool as_limited=() as_owner=() MOUNT_OPTIONS=
	mkdir "$HOST"
	if [ -n "$quota" ]; then
		limit "$quota" "$3"
		MOUNT_OPTIONS=drop_privileges
		as_limited=(setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource)
	else
		fallocate -l "$3" "$DISK/filler" # the smallest xfs there is would take long to fill
	fi
	# shellcheck disable=SC2086
	"$VCLONE" init $POOL_OPTIONS "$POOL" >>"$LOG" 2>&1 || fail "vclone init"
	if [ "$quota" = user ]; then
		chown -R $NOBODY "$POOL"
		MOUNT_OPTIONS=run_as=$NOBODY
		as_owner=(setpriv --reuid=$NOBODY --regid=$NOBODY --clear-groups)
		as_limited=("${as_owner[@]}")
	fi
	rm -f "$TEST_DIR/state"
	mount_pool destage_ms=3600000
	for i in $(seq "$cycles"); do
		one_cycle
	done
	[ -n "$quota" ] || short_cycles
	unmount_pool
	case $quota in
	user | group) grep -q "Disk quota exceeded" "$LOG" || fail "the quota was never met" ;;
	esac
	want 0 "${as_owner[@]}" "$VCLONE" check --data "$POOL" >>"$LOG"
	umount "$DISK"
	[ -z "$LOOP" ] || losetup -d "$LOOP"
	LOOP=
	echo "$1: $cycles cycles, ${SECONDS}s since the beginning"
}

INIT=$POOL_OPTIONS POOL_OPTIONS=
setup_pool
POOL_OPTIONS=$INIT
DISK=$TEST_DIR/host
mkdir "$DISK"
trap undo_disk EXIT
[ -n "${DEVICE:-}" ] || losetup -f >/dev/null 2>&1 || skip "no loop device"
for system in ${FS:-ext4 xfs}; do
	case $system in
	xfs*) command -v mkfs.xfs >/dev/null && grep -qw xfs /proc/filesystems || { echo "xfs: not here, left out" && continue; } ;;
	esac
	case $system in
	ext4) one_system ext4 80M 8M ;;
	xfs) one_system xfs 320M 170M ;;
	*-*) one_system "$system" 320M 40M ;;
	*) fail "FS: $system?" ;;
	esac
done
