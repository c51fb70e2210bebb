#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# -o drop_privileges and run_as: what serves the mount has no capability and no way to get one, everything works as before, and the
# mount point is free again however it ends.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

POOL_OPTIONS='--log-size 16M --log-segment 2M --segment 4M'
setup_pool
# A process that nobody may look into cannot be searched for leaks either.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
server_pid=

# The one that serves, and what the kernel says of all its threads.
find_server() {
	for _ in $(seq 200); do
		server_pid=$(cat "/proc/$daemon_pid/task/$daemon_pid/children")
		server_pid=${server_pid%% *}
		[ -n "$server_pid" ] && [ -d "/proc/$server_pid" ] && stat "$MNT" >/dev/null && return
		sleep 0.05
	done
	fail "no serving process"
}
check_powerless() {
	local uid=$1 task bits

	for task in /proc/$server_pid/task/*; do
		bits=$(grep -E '^Cap(Prm|Eff|Bnd|Amb|Inh)' "$task/status" | cut -f 2 | sort -u)
		[ "$bits" = 0000000000000000 ] || fail "capabilities of $(cat "$task/comm"): $(grep ^Cap "$task/status")"
		grep -q '^NoNewPrivs:	1' "$task/status" || fail "no_new_privs of $(cat "$task/comm")"
		[ "$(awk '/^Uid/ { print $2, $3, $4, $5 }' "$task/status")" = "$uid $uid $uid $uid" ] || fail "user of $(cat "$task/comm")"
	done
	[ "$(ls "/proc/$server_pid/task" | wc -l)" -gt 10 ] || fail "threads are missing"
	# The keeper: CAP_SYS_ADMIN (21) and CAP_DAC_READ_SEARCH (2) at most.
	for bits in $(grep -E '^Cap' "/proc/$daemon_pid/status" | cut -f 2); do
		[ $((0x$bits & ~0x200004)) -eq 0 ] || fail "the keeper has $bits"
	done
}
gone() {
	for _ in $(seq 200); do
		[ -d "/proc/$1" ] && ! grep -q '^State:	Z' "/proc/$1/status" 2>/dev/null || return 0
		sleep 0.05
	done
	fail "process $1 still lives"
}
use_it() {
	python3 - <<'END' || fail "use"
from vctest import *
import mmap

fd = os.open(path("image"), os.O_RDWR | os.O_CREAT | os.O_DIRECT)
buf = mmap.mmap(-1, 1 << 20)
buf.write(random.Random(3).randbytes(1 << 20))
for i in range(8):
    same(os.pwrite(fd, buf, i << 20), 1 << 20, "write")
os.fsync(fd)
os.posix_fallocate(fd, 0, 9 << 20)
os.close(fd)
ioctl(".", CLONE, clone_arg("image", "clone"))
ioctl(".", CLONE_MANY, clone_many_arg("image", "many-%d", 0, 20))
os.write(os.open(path(".clone"), os.O_WRONLY), b"image by-magic\n")
os.setxattr(path("image"), "trusted.x", b"1")
os.chown(path("clone"), 1, 2)
os.mknod(path("node"), 0o600 | 0o020000, os.makedev(1, 3))
# Groups of the caller are seen without rights too.
os.chown(path("many-1"), 0, 2500)
os.chmod(path("many-1"), 0o640)
os.chmod(MNT, 0o777)
if os.fork() == 0:
    os.setgroups([2500])
    os.setresgid(2002, 2002, 2002)
    os.setresuid(2002, 2002, 2002)
    raises(errno.EACCES, ioctl, ".", TASK_START, task_arg(0))
    raises(errno.EACCES, open, path("node"), "rb")
    ioctl(".", CLONE, clone_arg("many-1", "by-group"))
    os._exit(0)
same(os.wait()[1], 0, "the second user")
END
	timeout 60 "$VCLONE" destage "$MNT" >/dev/null
	timeout 60 "$VCLONE" clean "$MNT" >/dev/null
	cmp "$MNT/image" "$MNT/by-magic"
	rm -f "$MNT"/* 
}
export MNT

# Ended by umount, by a signal to each, and by killing each.
mount_pool drop_privileges
find_server
check_powerless 0
use_it
echo kept >"$MNT/kept"
unmount_pool
gone "$server_pid"
for signal in TERM INT HUP; do
	mount_pool drop_privileges
	find_server
	kill -$signal "$daemon_pid"
	wait_for_daemon
	gone "$server_pid"
	! mountpoint -q "$MNT" || fail "mounted after SIG$signal"
done
mount_pool drop_privileges
find_server
kill -TERM "$server_pid"
wait_for_daemon
! mountpoint -q "$MNT" || fail "mounted after SIGTERM to the server"

mount_pool drop_privileges
find_server
echo acknowledged >"$MNT/killed"
kill -KILL "$server_pid"
status=0
wait "$daemon_pid" || status=$?
daemon_pid=
[ $status -eq 32 ] || fail "status $status after SIGKILL to the server"
! grep -q " $MNT " /proc/self/mounts || fail "a dead mount is left"
mount_pool drop_privileges
find_server
[ "$(cat "$MNT/kept" "$MNT/killed")" = "kept
acknowledged" ] || fail "lost by SIGKILL"
echo more >"$MNT/more"
kill -KILL "$daemon_pid"
wait "$daemon_pid" || :
daemon_pid=
gone "$server_pid"
umount -l "$MNT"
mount_pool drop_privileges
[ "$(cat "$MNT/more")" = more ] || fail "lost when the keeper was killed"
unmount_pool

# A file that is open delays the end, not for ever, and the mount point is free at once.
mount_pool drop_privileges
exec 5>"$MNT/open"
find_server
kill -TERM "$daemon_pid"
for _ in $(seq 100); do
	grep -q " $MNT " /proc/self/mounts || break
	sleep 0.05
done
! grep -q " $MNT " /proc/self/mounts || fail "mounted while a file is open"
echo late >&5
exec 5>&-
wait_for_daemon

# A pool that does not open leaves no mount, and the status of mount(8).
mount_pool drop_privileges
for options in drop_privileges run_as=65534; do
	mkdir -p "$TEST_DIR/other"
	want 32 "$VCLONEFS" -o "$options" "$POOL" "$TEST_DIR/other" 2>"$TEST_DIR/out"
	[ -s "$TEST_DIR/out" ] || fail "no message"
	! mountpoint -q "$TEST_DIR/other" || fail "mounted: a pool in use"
done
unmount_pool
want 32 "$VCLONEFS" -o run_as=no-such-user "$POOL" "$MNT" 2>"$TEST_DIR/out"
grep -q "no user no-such-user" "$TEST_DIR/out" || fail "message: $(cat "$TEST_DIR/out")"

# As another user, whose pool it has to be.
! try_mount_pool run_as=65534 || fail "nobody has opened root's pool"
chown -R 65534:65534 "$POOL"
! try_mount_pool || fail "root has opened nobody's pool"
grep -q "belongs to user 65534" "$LOG" || fail "no message of whose pool it is"
mount_pool run_as=65534
find_server
check_powerless 65534
use_it
unmount_pool
[ -z "$(find "$POOL" ! -user 65534)" ] || fail "files of others in the pool: $(find "$POOL" ! -user 65534)"
chown -R 0:0 "$POOL"

# In the background; and the service manager hears it from the process that it started.
"$VCLONEFS" -o allow_other,drop_privileges "$POOL" "$MNT" || fail "in the background: status $?"
mountpoint -q "$MNT" && echo there >"$MNT/background"
umount "$MNT"
for _ in $(seq 200); do
	flock -n "$POOL/lock" true && break
	sleep 0.05
done
flock -n "$POOL/lock" true || fail "the pool is still in use"
python3 - "$VCLONEFS" "$POOL" <<'END' || fail "the service manager"
import signal
import socket
import subprocess
from vctest import *

for options in "allow_other", "allow_other,drop_privileges":
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind("\0vclonefs-test-%d" % os.getpid())
        manager.settimeout(60)
        env = dict(os.environ, NOTIFY_SOCKET="@vclonefs-test-%d" % os.getpid())
        daemon = subprocess.Popen([sys.argv[1], "-f", "-o", options, sys.argv[2], MNT], env=env)
        for word in b"READY=1", b"STOPPING=1":
            text, control, _, _ = manager.recvmsg(100, 100)
            sender = struct.unpack("iii", control[0][2])[0]
            same((text, sender), (word, daemon.pid), options)
            if word == b"READY=1":
                same(read("background"), b"there\n", "content when ready")
                daemon.send_signal(signal.SIGTERM)
        same(daemon.wait(60), 0, "status")
END

# Other users on a mount that is served without rights. (Any test of the mount runs so with MOUNT_OPTIONS=drop_privileges.)
MOUNT_OPTIONS=drop_privileges TMPDIR=$TEST_DIR "$SRC_DIR/tests/mount/users.sh" >"$TEST_DIR/out" 2>&1 || {
	cat "$TEST_DIR/out"
	fail "users.sh without rights"
}
