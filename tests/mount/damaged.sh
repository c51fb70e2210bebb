#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Pools with parts missing, foreign, truncated or with flipped bits. Where the mount is refused: a message that names the file, status 32,
# and not a byte of the pool changed. Where it is not, every file reads as it was or fails with EIO. Never a crash, never other data.
#
# VC_TEST_SEED, VC_TEST_ROUNDS: the bits to flip, and how many.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

FLIPS=${VC_TEST_ROUNDS:-40}
POOL_OPTIONS='--log-size 16M --log-segment 2M --segment 1M'
setup_pool
setup_load
setup_seed

sums() { (cd "$1" && find . -type f ! -name "lock*" -print0 | sort -z | xargs -0 md5sum; find . | sort); }

# Two pools: one with everything in its place, one that was killed with all in the log.
make_content() {
	local i

	for i in 1 2 3; do
		head -c $((700000 * i)) /dev/urandom >"$MNT/file$i"
	done
	cp "$MNT/file3" "$MNT/clone"
	head -c 50000 /dev/zero | tr '\0' x | dd of="$MNT/clone" bs=50000 seek=1 conv=notrunc status=none
	mkdir "$MNT/dir"
	echo small >"$MNT/dir/small"
	mkdir -p "$TEST_DIR/model"
	cp -r "$MNT/." "$TEST_DIR/model"
	# Every byte of the model flushed, file by file (sync -f does not reach a FUSE daemon), and then records behind them that say so: an end of
	# the log that nothing says was durable may go without a message.
	find "$MNT" -depth -exec sync {} +
	echo last >"$MNT/last"
	sync "$MNT/last"
}
whole=$TEST_DIR/whole crashed=$TEST_DIR/crashed other=$TEST_DIR/other
mount_pool
make_content
unmount_pool
cp -a "$POOL" "$whole"
mv "$TEST_DIR/model" "$TEST_DIR/model-whole"
rm -r "$POOL"
"$VCLONE" init $POOL_OPTIONS "$POOL" >>"$LOG"
mount_pool destage_ms=never
make_content
crash_pool
cp -a "$POOL" "$crashed"
mv "$TEST_DIR/model" "$TEST_DIR/model-crashed"
rm -r "$POOL"
"$VCLONE" init $POOL_OPTIONS "$POOL" >>"$LOG"
mount_pool destage_ms=never
make_content
crash_pool
mv "$POOL" "$other"

# start POOL: mount it as $MNT; the status of a refused mount, 0 when it is there.
start() {
	"$VCLONEFS" -f "$1" "$MNT" >"$TEST_DIR/out" 2>&1 &
	daemon_pid=$!
	for _ in $(seq 400); do
		mountpoint -q "$MNT" && return 0
		kill -0 $daemon_pid 2>/dev/null || break
		sleep 0.02
	done
	kill -0 $daemon_pid 2>/dev/null && fail "$what: neither mounted nor ended"
	status=0
	wait $daemon_pid || status=$?
	daemon_pid=
	return $status
}

copy_of() {
	rm -rf "$TEST_DIR/try"
	cp -a "$1" "$TEST_DIR/try"
}

# refused WHAT MESSAGE: the pool in try, damaged before, must not mount.
refused() {
	local what=$1 before after status=0

	before=$(sums "$TEST_DIR/try")
	start "$TEST_DIR/try" || status=$?
	[ $status -eq 32 ] || fail "$what: status $status: $(cat "$TEST_DIR/out")"
	grep -Eiq -- "$2" "$TEST_DIR/out" || fail "$what: the message is: $(cat "$TEST_DIR/out")"
	after=$(sums "$TEST_DIR/try")
	[ "$before" = "$after" ] || fail "$what: a refused pool was changed: $(diff <(echo "$before") <(echo "$after"))"
	echo "$what: $(head -n 1 "$TEST_DIR/out" | sed "s,$TEST_DIR/,,g")"
}

# flip FILE OFFSET BIT [STEP END]: a bit of that byte, and of each STEP bytes further up to END.
flip() {
	python3 - "$@" <<'END2'
import sys

at, bit, *more = map(int, sys.argv[2:])
step, end = more or (1, at + 1)
with open(sys.argv[1], "r+b") as f:
    for here in range(at, end, step):
        f.seek(here)
        byte = f.read(1)[0]
        f.seek(here)
        f.write(bytes([byte ^ 1 << bit]))
END2
}

# ---- what is missing, short or foreign ----

try=$TEST_DIR/try
copy_of "$whole"; rm "$try/pool"; refused "no pool file" 'try: .*pool'
copy_of "$whole"; mv "$try/pool" "$try/pool.new"; refused "half created" 'try: .*pool'
copy_of "$whole"; : >"$try/pool"; refused "empty pool file" 'pool:'
copy_of "$whole"; truncate -s 100 "$try/pool"; refused "short pool file" 'pool:'
for at in 0 9 40 70; do
	copy_of "$whole"; flip "$try/pool" $at 3; refused "pool file with a flipped bit at $at" 'pool:'
done
copy_of "$whole"; cp "$other/pool" "$try/pool"; refused "foreign pool file" 'meta|log'
mkdir "$TEST_DIR/empty"; rm -rf "$try"; cp -a "$TEST_DIR/empty" "$try"; refused "empty directory" 'try: .*pool'
for part in log chunk meta journal; do
	copy_of "$whole"; rm -r "${try:?}/$part"; refused "no $part" "try/$part"
done
copy_of "$whole"; rm "$try/meta/data.mdb"; refused "no data.mdb" 'data.mdb'
copy_of "$whole"; : >"$try/meta/data.mdb"; refused "empty data.mdb" 'data.mdb'
for size in 4096 8192 20480 40000; do
	copy_of "$whole"; truncate -s $size "$try/meta/data.mdb"; refused "data.mdb of $size bytes" 'data.mdb'
done
copy_of "$whole"; cp "$other/meta/data.mdb" "$try/meta/data.mdb"; refused "foreign data.mdb" 'meta'
for from in whole crashed; do
	copy_of "${!from}"; rm -r "$try/log"; cp -a "$other/log" "$try/log"; refused "foreign log ($from)" 'log'
	copy_of "${!from}"; rm "$(find "$try/log" -type f | sort | head -n 1)"; refused "a log segment missing ($from)" 'log'
done
# Of those that are in use: in the midst of what is known to be durable. A byte alone could lie between two batches, where nothing counts; that ends at
# the next multiple of 64.
for segment in "$crashed"/log/*; do
	[ "$(tail -c +8193 "$segment" | tr -d '\0' | head -c 300000 | wc -c)" -lt 300000 ] || break
done
segment=${segment##*/}
copy_of "$crashed"; truncate -s 5000 "$try/log/$segment"; refused "short log segment" "log.*$segment"
for at in 8200 20000 300000; do
	copy_of "$crashed"; flip "$try/log/$segment" $at 5 8 $((at + 64)); refused "log with a flipped bit at $at" "log.*$segment"
done

# ---- any bit of any file ----

read_all() {
	local model=$1 file status

	(cd "$model" && find . -type f) | while read -r file; do
		status=0
		timeout 20 cat "$MNT/$file" >"$TEST_DIR/content" 2>"$TEST_DIR/error" || status=$?
		if [ $status -ne 0 ]; then
			grep -q 'Input/output error' "$TEST_DIR/error" || fail "$what: $file: status $status, $(cat "$TEST_DIR/error")"
			continue
		fi
		cmp "$TEST_DIR/content" "$model/$file" || fail "$what: $file reads as something else"
	done
}

count_refused=0 count_mounted=0
for ((i = 0; i < FLIPS; i++)); do
	from=whole
	((RANDOM % 2)) && from=crashed
	copy_of "${!from}"
	mapfile -t files < <(find "$try" -type f -size +0 ! -name "lock*" | sort)
	file=${files[RANDOM % ${#files[@]}]}
	((i % 3)) || file=$try/meta/data.mdb
	size=$(stat -c %s "$file")
	at=$(((RANDOM * 32768 + RANDOM) % size))
	bit=$((RANDOM % 8))
	what="$from pool, bit $bit of byte $at of ${file#"$try"/}"
	flip "$file" $at $bit
	before=$(sums "$try")
	status=0
	start "$try" || status=$?
	case $status in
	0)
		count_mounted=$((count_mounted + 1))
		read_all "$TEST_DIR/model-$from"
		umount "$MNT" || fail "$what: umount"
		status=0
		wait $daemon_pid || status=$?
		daemon_pid=
		# It may find damage when it ends, too; it may not crash.
		[ $status -eq 0 ] || [ $status -eq 32 ] || fail "$what: the daemon ended with status $status: $(cat "$TEST_DIR/out")"
		;;
	32)
		count_refused=$((count_refused + 1))
		[ -s "$TEST_DIR/out" ] || fail "$what: no message"
		[ "$before" = "$(sums "$try")" ] || fail "$what: a refused pool was changed"
		;;
	*) fail "$what: status $status: $(cat "$TEST_DIR/out")" ;;
	esac
done
echo "flipped bits: $count_refused refused, $count_mounted mounted"

# ---- a chunk that is read ----

copy_of "$whole"
for file in "$try"/chunk/*; do
	[ -f "$file" ] && [ "$(stat -c %s "$file")" -gt 100000 ] || continue
	flip "$file" 3000 1 4001 100000
done
what="many flipped bits in chunks"
before=$(cd "$try/chunk" && find . -type f -size +100k -exec sha256sum {} + | sort)
start "$try" || fail "$what: $(cat "$TEST_DIR/out")"
read_all "$TEST_DIR/model-whole"
cat "$MNT/file3" >/dev/null 2>&1 && fail "$what: nobody notices"
grep -Eq 'chunk/.*[0-9]' "$TEST_DIR/out" || fail "$what: the message is: $(cat "$TEST_DIR/out")"
[ "$(cat "$MNT/dir/small")" = small ] || echo "the small file was hit, too"
echo new >"$MNT/new" || fail "$what: nothing can be written any more"
umount "$MNT"
wait_for_daemon
[ "$before" = "$(cd "$try/chunk" && find . -type f -size +100k -exec sha256sum {} + | sort)" ] || fail "$what: damaged files were changed"
echo "$what: $(head -n 1 "$TEST_DIR/out" | sed "s,$TEST_DIR/,,g")"

# ---- LMDB's file is cut under the daemon ----

copy_of "$whole"
what="data.mdb cut under the daemon"
start "$try" || fail "$what: $(cat "$TEST_DIR/out")"
cmp "$MNT/file1" "$TEST_DIR/model-whole/file1" || fail "$what: before"
truncate -s 8192 "$try/meta/data.mdb"
read_all "$TEST_DIR/model-whole"
! (echo new >"$MNT/new") 2>/dev/null || (cat "$MNT/dir/small" >/dev/null; ! (echo new >"$MNT/newer") 2>/dev/null) ||
	fail "$what: writing goes on"
cmp "$MNT/file1" "$TEST_DIR/model-whole/file1" || fail "$what: what was read before is gone"
kill -0 $daemon_pid || fail "$what: the daemon ended: $(cat "$TEST_DIR/out")"
grep -q 'data.mdb: .*page of the file is gone' "$TEST_DIR/out" || fail "$what: the message is: $(cat "$TEST_DIR/out")"
umount "$MNT" || fail "$what: umount"
status=0
wait $daemon_pid || status=$?
daemon_pid=
[ $status -eq 0 ] || [ $status -eq 32 ] || fail "$what: the daemon ended with status $status: $(cat "$TEST_DIR/out")"
echo "$what: $(grep -m 1 'page of the file is gone' "$TEST_DIR/out" | sed "s,$TEST_DIR/,,g")"
