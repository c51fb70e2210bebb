#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The mount program: start in the background and in the foreground, what it tells its manager, how it ends, what it refuses.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool

wait_unmounted() {
	for _ in $(seq 300); do
		mountpoint -q "$MNT" || return 0
		sleep 0.05
	done
	fail "still mounted"
}

# In the background: live when the command returns; the mount's source and type are right; ends by umount.
"$VCLONEFS" "$POOL" "$MNT" -o allow_other,noatime,_netdev,x-systemd.requires=foo,cache=64M,node_cache=16M,threads=3 \
	>"$TEST_DIR/out" 2>&1 || fail "no start in the background: $(cat "$TEST_DIR/out")"
mountpoint -q "$MNT" || fail "the command returned before the mount was live"
[ "$(findmnt -n -o SOURCE,FSTYPE "$MNT" | tr -s ' ')" = "$POOL fuse.vclonefs" ] || fail "$(findmnt "$MNT")"
findmnt -n -o OPTIONS "$MNT" | grep -q default_permissions || fail "no default_permissions"
echo kept >"$MNT/file"
# The pool is in use now.
want 32 "$VCLONEFS" "$POOL" "$MNT" 2>"$TEST_DIR/out"
[ -s "$TEST_DIR/out" ] || fail "a refused second mount says nothing"
[ "$(cat "$MNT/file")" = kept ] || fail "the refused second mount broke the first"
umount "$MNT"
# Its end is seen by the pool being free again.
for i in $(seq 200); do
	"$VCLONEFS" "$POOL" "$MNT" 2>/dev/null && break
	[ "$i" -lt 200 ] || fail "the daemon did not end after umount"
	sleep 0.05
done
[ "$(cat "$MNT/file")" = kept ] || fail "lost by unmounting"
umount "$MNT"
for i in $(seq 200); do
	try_mount_pool && break
	[ "$i" -lt 200 ] || fail "the daemon did not end after the second umount"
	sleep 0.05
done

# Signals: a clean end, also with a file open, whose last write is kept.
for signal in TERM INT HUP; do
	mountpoint -q "$MNT" || mount_pool
	echo "$signal" >"$MNT/signal"
	kill -$signal $daemon_pid
	wait_for_daemon
	mountpoint -q "$MNT" && fail "mounted after SIG$signal"
	mount_pool
	[ "$(cat "$MNT/signal")" = $signal ] || fail "lost by SIG$signal"
done
exec 5>"$MNT/open"
echo first >&5
kill -TERM $daemon_pid
wait_unmounted
# Detached, but whoever has a file open is still served.
echo second >&5 || fail "an open file is cut off at once"
exec 5>&-
wait_for_daemon
mount_pool
[ "$(cat "$MNT/open")" = "first
second" ] || fail "the write while detaching is lost: $(cat "$MNT/open")"

# A user who does not let go is cut off in the end.
exec 5<"$MNT/open"
kill -TERM $daemon_pid
wait_for_daemon
cat <&5 2>/dev/null >&2 && fail "served by a daemon that is gone"
exec 5<&-

# As a service.
python3 - "$VCLONEFS" "$POOL" "$MNT" "$TEST_DIR/notify" <<'END' || fail "service manager"
import os
import signal
import socket
import subprocess
import sys

program, pool, mnt, path = sys.argv[1:]
for address in path, "\0vclonefs-test-%d" % os.getpid():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(address)
    s.settimeout(60)
    env = dict(os.environ, NOTIFY_SOCKET=address.replace("\0", "@"))
    p = subprocess.Popen([program, "-f", pool, mnt], env=env)
    assert s.recv(100) == b"READY=1"
    assert os.path.ismount(mnt), "ready before the mount is live"
    p.send_signal(signal.SIGTERM)
    assert s.recv(100) == b"STOPPING=1"
    assert p.wait(60) == 0, p.returncode
END

# Refused, each with a message and without a mount.
mkdir "$POOL/inside" "$TEST_DIR/around" 2>/dev/null || :
refused() {
	local status=$1
	shift
	want "$status" "$VCLONEFS" "$@" >"$TEST_DIR/out" 2>&1
	[ -s "$TEST_DIR/out" ] || fail "no message: $*"
	mountpoint -q "$MNT" && fail "mounted: $*"
	:
}
refused 1 "$POOL"
refused 1 "$POOL" "$POOL"
refused 1 "$POOL" "$POOL/inside"
refused 1 "$POOL" "$TEST_DIR"
refused 1 "$POOL" "$TEST_DIR/none"
refused 1 "$TEST_DIR/none" "$MNT"
refused 1 "$POOL" "$LOG"
refused 1 -x "$POOL" "$MNT"
for option in cache=x cache=-1 node_cache= blocks=some threads=0 threads=1000 threads=x destage_ms=-5 destage_ms=x \
	log="$TEST_DIR/none" remount; do
	refused 1 "$POOL" "$MNT" -o $option
done
refused 32 "$POOL" "$MNT" -o no_such_option
refused 32 -f "$POOL" "$MNT" -o no_such_option
want 0 "$VCLONEFS" --help >/dev/null
"$VCLONEFS" --version | grep -Eq '^vclonefs [0-9]+\.[0-9]+' || fail "version"
rmdir "$POOL/inside"

# Read-only.
mount_pool ro
[ "$(head -n 1 "$MNT/open")" = first ] || fail "read-only: $(cat "$MNT/open")"
(echo x >"$MNT/open") 2>/dev/null && fail "read-only took a write"
(echo open x >"$MNT/.clone") 2>/dev/null && fail "read-only took a clone"
unmount_pool
