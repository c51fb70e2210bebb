#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Beginning and end through mount(8) and umount(8), while files are written: what was acknowledged is there, whoever comes second is told
# so. lifecycle.sh looks at the program itself, damaged.sh at pools that cannot be mounted.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

setup_pool
setup_load

# A writer of numbered lines that goes on until it cannot.
cat >"$TEST_DIR/writer.py" <<'END2'
import os
import sys

fd = os.open(sys.argv[1] + "/numbers", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
n = 0
try:
    while not os.path.exists(sys.argv[2] + ".stop"):
        os.write(fd, b"%011d\n" % n)
        n += 1
        if n % 50 == 0:
            os.fsync(fd)
        if n == 200:
            open(sys.argv[2] + ".begun", "w").close()
except OSError:
    pass
with open(sys.argv[2], "w") as f:
    f.write(str(n))
END2
start_writer() {
	rm -f "$TEST_DIR"/written*
	timeout 60 python3 "$TEST_DIR/writer.py" "$MNT" "$TEST_DIR/written" &
	writer=$!
	jobs_pids+=($writer)
	until [ -e "$TEST_DIR/written.begun" ]; do
		kill -0 $writer || fail "the writer has ended"
		sleep 0.01
	done
}
check_numbers() {
	local written lines

	written=$(cat "$TEST_DIR/written")
	lines=$(wc -l <"$MNT/numbers")
	# The last write may have happened without having been acknowledged.
	[ "$lines" -eq "$written" ] || [ "$lines" -eq $((written + 1)) ] || fail "$1: $lines lines of $written are there"
	awk '$1 != NR - 1 { exit 1 }' "$MNT/numbers" || fail "$1: wrong lines"
	echo "$1: $written writes, all there"
}

# umount says that it is busy, a lazy one lets the writer finish.
mount_pool
start_writer
want 32 umount "$MNT" 2>"$TEST_DIR/out"
grep -q busy "$TEST_DIR/out" || fail "umount: $(cat "$TEST_DIR/out")"
umount -l "$MNT"
"$VCLONEFS" "$POOL" "$MNT" >"$TEST_DIR/out" 2>&1 && fail "two daemons on one pool"
grep -Eq "pool.*in use" "$TEST_DIR/out" || fail "a second daemon says: $(cat "$TEST_DIR/out")"
echo "a second daemon: $(sed "s,$TEST_DIR/,,g" "$TEST_DIR/out" | head -n 1)"
: >"$TEST_DIR/written.stop"
wait $writer || fail "writer: status $?"
wait_for_daemon
mount_pool
check_numbers "lazy umount"

# SIGTERM: writers are given some time, then cut off.
start_writer
kill -TERM $daemon_pid
sleep 0.5
: >"$TEST_DIR/written.stop"
wait $writer || fail "writer: status $?"
wait_for_daemon
mount_pool
check_numbers SIGTERM
start_writer
crash_pool
wait $writer || fail "writer: status $?"
mount_pool
check_numbers SIGKILL
unmount_pool

# A pool that was killed is replayed in memory when it is mounted read-only; nothing is changed.
mount_pool destage_ms=never
echo late >"$MNT/late"
crash_pool
sums() { (cd "$POOL" && find . -type f ! -name "lock*" -print0 | sort -z | xargs -0 sha256sum); }
before=$(sums)
mount_pool ro
[ "$(cat "$MNT/late")" = late ] || fail "read-only after a kill: lost"
unmount_pool
[ "$before" = "$(sums)" ] || fail "a read-only mount has changed a pool that was killed"
mount_pool
[ "$(cat "$MNT/late")" = late ] || fail "lost"
unmount_pool
before=$(sums)
mount_pool ro
[ "$(cat "$MNT/late")" = late ] || fail "read-only: lost"
for command in 'touch "$MNT/x"' 'rm "$MNT/late"' 'echo >>"$MNT/late"' 'chmod 600 "$MNT/late"' 'mv "$MNT/late" "$MNT/x"' \
	'"$VCLONE" clone "$MNT/late" "$MNT/x"' '"$VCLONE" destage "$MNT"' '"$VCLONE" clean "$MNT"'; do
	(eval "$command") 2>"$TEST_DIR/out" && fail "read-only: $command worked"
	grep -q 'Read-only' "$TEST_DIR/out" || fail "read-only: $command: $(cat "$TEST_DIR/out")"
done
unmount_pool
[ "$before" = "$(sums)" ] || fail "a read-only mount has changed the pool"

# As mount -t fuse.vclonefs does it, but for where the program is: mount(8) looks for it in the places of installed ones only.
if [ ! -x /sbin/mount.fuse ]; then
	echo "without /sbin/mount.fuse: not tried with mount(8)"
	exit 0
fi
try_mount() {
	local i

	for ((i = 0; i < 200; i++)); do
		status=0
		timeout 20 mount -t fuse "$VCLONEFS#$POOL" "$MNT" -o $1 2>"$TEST_DIR/out" || status=$?
		grep -q "in use" "$TEST_DIR/out" || return 0
		sleep 0.05 # the one before makes everything durable yet
	done
}
for option in cache=16M,allow_other defaults,noatime,blocks=real ro; do
	try_mount $option
	[ $status -eq 0 ] || fail "mount -o $option: status $status: $(cat "$TEST_DIR/out")"
	[ "$(findmnt -n -o FSTYPE,SOURCE "$MNT" | tr -s ' ')" = "fuse.vclonefs $POOL" ] || fail "mount: $(findmnt "$MNT")"
	[ "$(cat "$MNT/late")" = late ] || fail "mount -o $option: lost"
	if [ $option = ro ]; then
		touch "$MNT/x" 2>/dev/null && fail "mount -o ro can be written to"
	else
		"$VCLONE" clone "$MNT/late" "$MNT/clone-$option" || fail "mount -o $option: clone"
	fi
	umount "$MNT"
done
try_mount no_such_option
[ $status -ne 0 ] || fail "mount takes any option"
grep -q no_such_option "$TEST_DIR/out" || fail "mount -o no_such_option: $(cat "$TEST_DIR/out")"
mountpoint -q "$MNT" && fail "mounted in spite of an unknown option"
exit 0
