#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Power cuts of a whole machine: a User-Mode Linux guest, whose root is ours read-only, has a file system on a disk of its own, the
# pool in it, the daemon, and writers whose ledger lies outside of the guest. It is killed at random moments, also while it recovers: what
# its kernel had not written to the disk is gone, as with a power cut; what it had written stays, in the page cache of the host.
# The next guest mounts the disk, and the pool must hold every acknowledged flush and a prefix of the rest (D1, D2, D3), and be
# whole. tests/power/powercut-init is what happens in the guest, powerguest.c what is written and compared there.
#
# VC_TEST_SEED; VC_POWERCUT_CYCLES: how many cuts for each of VC_POWERCUT_FS.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"
. "$SRC_DIR/tests/mount/guest.bash"

CYCLES=${VC_POWERCUT_CYCLES:-3}
BOOT_TIMEOUT=100 # seconds

# start_guest DIR FSTYPE [VAR=value...]
start_guest() {
	local dir=$1 type=$2
	shift 2
	boot_guest "$dir/disk" powercut-init VC_LEDGER="$dir/ledger" VC_FS="$type" VC_TEST_SEED="$VC_TEST_SEED" "$@"
}

show_failure() {
	[ ! -e "$1/ledger/failed" ] || fail "$(cat "$1/ledger/failed")"
}

# wait_for DIR PATTERN: until the guest has made such a file in its ledger.
wait_for() {
	local deadline=$((SECONDS + BOOT_TIMEOUT))

	until compgen -G "$1/ledger/$2" >/dev/null; do
		show_failure "$1"
		kill -0 "$guest" 2>/dev/null || fail "the guest ended"
		[ $SECONDS -lt $deadline ] || fail "no $2 after $BOOT_TIMEOUT s"
		sleep 0.02
	done
}

# One life: to a random moment of its load, or, one in four, at any moment from its start on.
run_life() {
	local dir=$1 type=$2

	rm -f "$dir"/ledger/started.*
	start_guest "$dir" "$type"
	if [ -e "$dir/ledger/base" ] && [ $((RANDOM % 4)) = 0 ]; then
		random_ms 300 3000
	else
		wait_for "$dir" 'started.*'
		random_ms 100 1500
	fi
	show_failure "$dir"
	kill_guest
	show_failure "$dir"
}

make_disk() {
	truncate -s 512M "$2"
	case $1 in
	ext4) mkfs.ext4 -q -F -E nodiscard "$2" ;;
	xfs) mkfs.xfs -q -f -K "$2" ;;
	*) fail "VC_POWERCUT_FS: $1?" ;;
	esac
}

run_cycles() {
	local type=$1 dir=$TEST_DIR/$1 i

	mkdir "$dir" "$dir/ledger"
	make_disk "$type" "$dir/disk" >>"$LOG" 2>&1 || fail "mkfs.$type"
	for ((i = 0; i < CYCLES; i++)); do
		run_life "$dir" "$type"
	done
	rm -f "$dir/ledger/done"
	start_guest "$dir" "$type" VC_LAST=1
	wait_for "$dir" "done"
	kill_guest
	show_failure "$dir"
	echo "$type: $CYCLES power cuts"
	cat "$dir/ledger/verified"
	rm -rf --one-file-system "$dir"
}

setup_guest
command -v mkfs.xfs mkfs.ext4 >/dev/null || skip "mkfs.ext4 or mkfs.xfs is missing"
setup_seed
for type in ${VC_POWERCUT_FS:-ext4 xfs}; do
	run_cycles "$type"
done
