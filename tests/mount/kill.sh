#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon is killed again and again under load, at random moments, also while it recovers. After the next mount everything that was
# acknowledged is there (D7): writes, holes, names, attributes. A clone is there entirely or not at all, and holds each writer's changes
# up to one moment, with all that had returned before (D3). kill.py says how that is known.
#
# VC_TEST_SEED, VC_TEST_ROUNDS: the random choices, and how often.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

# Small parts, so that a few seconds see the log full, segments sealed and many checkpoints.
POOL_OPTIONS='--log-size 16M --log-segment 2M --segment 4M'
ROUNDS=${VC_TEST_ROUNDS:-8}
setup_pool
setup_load
setup_seed
export MNT VCLONE

model() {
	in_time 100 python3 "$SRC_DIR/tests/mount/kill.py" "$1" "$TEST_DIR/ledger" "$2"
}

FIO="--name=fio --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=256m --iodepth=16 --randseed=$VC_TEST_SEED
	--verify=crc32c --verify_fatal=0 --aux-path=$TEST_DIR --directory=$MNT/fio --fallocate=none"

# Ends when the daemon dies, tells which writes failed, and leaves behind how many there were.
start_fio() {
	rm -rf "$TEST_DIR"/*.state "$MNT/fio"
	mkdir "$MNT/fio"
	truncate -s 256M "$MNT/fio/fio.0.0"
	# shellcheck disable=SC2086
	timeout -k 5 100 fio $FIO --do_verify=0 --verify_state_save=1 >"$TEST_DIR/fio.write" 2>&1 &
	fio_pid=$!
	jobs_pids+=($fio_pid)
}

fio_count() { sed -n "s/.*issued rwts: total=$2,.*/\\1/p" "$TEST_DIR/$1"; }

# Replay what it had written. Only those may be missing that it knows to have failed.
verify_fio() {
	local wrote read

	wrote=$(fio_count fio.write '[0-9]*,\([0-9]*\)')
	if [ "${wrote:-0}" -le 40 ]; then # then it does not say which
		echo "fio: had hardly begun"
		return
	fi
	# shellcheck disable=SC2086
	timeout -k 5 100 fio $FIO --verify_only=1 --verify_state_load=1 >"$TEST_DIR/fio.read" 2>&1 || :
	sed -n 's/.*io_u error.*write offset=\([0-9]*\).*/\1/p' "$TEST_DIR/fio.write" | sort -u >"$TEST_DIR/failed"
	sed -n 's/.*verify.* at file .* offset \([0-9]*\),.*/\1/p' "$TEST_DIR/fio.read" | sort -u >"$TEST_DIR/missing"
	comm -13 "$TEST_DIR/failed" "$TEST_DIR/missing" >"$TEST_DIR/lost"
	[ ! -s "$TEST_DIR/lost" ] || {
		fio-verify-state "$TEST_DIR"/*.state || :
		head -n 12 "$TEST_DIR/fio.write" "$TEST_DIR/fio.read"
		fail "fio: acknowledged and lost: $(wc -l <"$TEST_DIR/lost") of $wrote blocks, at $(head -n 5 "$TEST_DIR/lost" | tr '\n' ' ')"
	}
	read=$(fio_count fio.read '\([0-9]*\)')
	[ "$read" -ge $((wrote - 1000)) ] || { cat "$TEST_DIR/fio.read"; fail "fio has only looked at $read of $wrote blocks"; }
	echo "fio: $read of $wrote writes looked at, $(wc -l <"$TEST_DIR/missing") of $(wc -l <"$TEST_DIR/failed") that failed are missing"
}

has_fio=
command -v fio >/dev/null && has_fio=1
mount_pool destage_ms=50
model create 0
unmount_pool

options=(destage_ms=1 destage_ms=50 destage_ms=never)
for ((round = 1; round <= ROUNDS; round++)); do
	mount_pool "${options[RANDOM % 3]},cache=8M,node_cache=4M"
	rm -f "$TEST_DIR/ledger.begun"
	timeout -k 5 100 python3 "$SRC_DIR/tests/mount/kill.py" load "$TEST_DIR/ledger" $round &
	load_pid=$!
	jobs_pids+=($load_pid)
	until [ -e "$TEST_DIR/ledger.begun" ]; do
		kill -0 $load_pid || fail "the load does not begin"
		sleep 0.02
	done
	fio_pid=
	[ -n "$has_fio" ] && ((round % 2)) && start_fio
	random_ms 100 2300
	crash_pool
	status=0
	wait $load_pid || status=$?
	[ $status -eq 0 ] || fail "the load ended with status $status"
	[ -z "$fio_pid" ] || wait $fio_pid || :
	if [ -e "$MNT/fio" ]; then # it was late and has made it anew, where nothing is mounted any more
		rm -r "$MNT/fio"
		fio_pid=
	fi
	# Recovery itself is killed, too.
	for ((i = RANDOM % 3; i > 0; i--)); do
		"$VCLONEFS" -f "$POOL" "$MNT" >>"$LOG" 2>&1 &
		daemon_pid=$!
		random_ms 1 200
		crash_pool
	done
	mount_pool
	model verify $round
	[ -z "$fio_pid" ] || verify_fio
	# Clean now and then, so that the next load also begins on a pool whose dead parts are gone.
	if ((round % 3 == 0)); then
		destage_pool
		clean_pool
		model verify $round
	fi
	unmount_pool
done
mount_pool ro
model verify 0
unmount_pool
[ -n "$has_fio" ] || echo "without fio"
