#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Clones of an image while an ext4 file system in it is mounted and written to: each is as the disk of a machine that lost its power at
# that moment. After the journal's replay e2fsck finds nothing, and every file that had been synced before the clone was
# asked for is complete. Prints what a clone takes, idle and under load.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

need_loops
setup_pool
setup_load
mount_pool destage_ms=200
export MNT TEST_DIR

image=$MNT/live.img
truncate -s 700M "$image"
mkfs.ext4 -q -F -m 0 "$image" || fail "mkfs.ext4"
mkdir "$TEST_DIR/fs" "$TEST_DIR/clone"
attach_loop "$image"
live=$loop
mount "$live" "$TEST_DIR/fs" || fail "mount"
[ "$(losetup -n -O DIO "$live" | tr -d ' ')" = 1 ] || echo "the loop device does without direct I/O"

# Clone times by the ioctl, in microseconds: the median and the greatest of some, each under a name that goes again.
cat >"$TEST_DIR/times.py" <<'END2'
import time

from vctest import *

times = []
for i in range(int(sys.argv[1])):
    start = time.perf_counter_ns()
    ioctl(".", CLONE, clone_arg("live.img", "timed"))
    times.append((time.perf_counter_ns() - start) // 1000)
    os.unlink(path("timed"))
    time.sleep(0.05)
times.sort()
print(times[len(times) // 2], times[-1])
END2
read -r idle idle_max < <(timeout 60 python3 "$TEST_DIR/times.py" 20) || fail "clones of the idle image"

# One job copies real files about; another syncs small ones, and lists outside of the mount those it has synced.
cat >"$TEST_DIR/copy.sh" <<'END2'
n=0
while [ ! -e "$TEST_DIR/stop" ]; do
	n=$((n + 1))
	mkdir -p "$TEST_DIR/fs/copy$n"
	for file in /usr/bin/[a-m]* /usr/lib/*/lib[a-p]*.so.*; do
		[ -e "$TEST_DIR/stop" ] && exit 0
		[ -f "$file" ] && cp "$file" "$TEST_DIR/fs/copy$n/"
		set -- $(stat -f -c '%a %b' "$TEST_DIR/fs")
		[ "$1" -gt $(($2 / 3)) ] || break
	done
	rm -rf "$TEST_DIR/fs/copy$((n - 1))"
done
END2
cat >"$TEST_DIR/sync.py" <<'END2'
import os
import zlib

root = os.environ["TEST_DIR"]
os.mkdir(root + "/fs/synced")
directory = os.open(root + "/fs/synced", os.O_RDONLY)
with open(root + "/ledger", "w") as ledger:
    n = 0
    while not os.path.exists(root + "/stop"):
        data = os.urandom(1 + n * 997 % 60000)
        fd = os.open(f"f{n}", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        os.fsync(directory)
        ledger.write(f"f{n} {len(data)} {zlib.crc32(data)}\n")
        ledger.flush()
        n += 1
        if n > 1500:
            os.unlink(f"f{n - 1500}", dir_fd=directory)
            ledger.write(f"-f{n - 1500}\n")
            ledger.flush()
END2
timeout 100 bash "$TEST_DIR/copy.sh" &
jobs_pids+=($!)
copy_pid=$!
timeout 100 python3 "$TEST_DIR/sync.py" &
jobs_pids+=($!)
sync_pid=$!

# clone_now WAY NAME: the ledger as it was before the clone is kept beside.
clone_now() {
	cp "$TEST_DIR/ledger" "$TEST_DIR/ledger-$2"
	case $1 in
	cp) in_time 30 cp "$image" "$MNT/$2" ;;
	magic) in_time 30 bash -c 'printf "live.img %s\n" "$1" >"$MNT/.clone"' - "$2" ;;
	ioctl) in_time 30 python3 -c 'import sys; from vctest import *; ioctl(".", CLONE, clone_arg("live.img", sys.argv[1]))' "$2" ;;
	vclone) in_time 30 "$VCLONE" clone "$image" "$MNT/$2" ;;
	many) in_time 30 "$VCLONE" clone -n 3 "$image" "$MNT/$2.%d" ;;
	esac
}

until [ "$(cat "$TEST_DIR/ledger" 2>/dev/null | wc -l)" -ge 20 ]; do
	kill -0 $sync_pid 2>/dev/null || fail "the load has ended"
	sleep 0.05
done
names=()
for turn in 1 2; do
	for way in cp magic ioctl vclone many; do
		sleep 0.3
		clone_now $way "$way-$turn"
		names+=("$way-$turn")
	done
done
# A clone of a clone, and one that is only checked by the kernel's own replay.
in_time 30 cp "$MNT/many-2.1" "$MNT/second"
cp "$TEST_DIR/ledger-many-2" "$TEST_DIR/ledger-second"
read -r loaded loaded_max < <(timeout 60 python3 "$TEST_DIR/times.py" 20) || fail "clones of the image under load"
kill -0 $copy_pid $sync_pid 2>/dev/null || fail "the load has ended"
: >"$TEST_DIR/stop"
wait $copy_pid || fail "copying files: status $?"
wait $sync_pid || fail "syncing files: status $?"
echo "clone by ioctl, median and greatest of 20: idle $idle / $idle_max us, under load $loaded / $loaded_max us"
echo "synced $(grep -c '^f' "$TEST_DIR/ledger") files meanwhile"

# Every file that the ledger had before the clone, but for those about to be removed.
cat >"$TEST_DIR/check.py" <<'END2'
import os
import sys
import zlib

ledger, after, directory = sys.argv[1:]
gone = {line[1:].strip() for line in open(after) if line[0] == "-"}
checked = 0
for line in open(ledger):
    if line[0] == "-" or not line.endswith("\n"):
        continue
    name, length, crc = line.split()
    try:
        with open(os.path.join(directory, name), "rb") as f:
            data = f.read()
    except FileNotFoundError:
        number = int(name[1:])
        assert name in gone or f"f{number - 1}" in gone, f"{name} was synced before the clone and is missing"
        continue
    assert (len(data), zlib.crc32(data)) == (int(length), int(crc)), f"{name}: {len(data)} bytes instead of {length}, or damaged"
    checked += 1
assert checked >= 20, checked
END2

check_clone() {
	attach_loop "$MNT/$1"
	timeout 60 mount "$loop" "$TEST_DIR/clone" || fail "$1 cannot be mounted"
	timeout 60 python3 "$TEST_DIR/check.py" "$TEST_DIR/ledger-$2" "$TEST_DIR/ledger" "$TEST_DIR/clone/synced" || fail "$1: synced files"
	find "$TEST_DIR/clone" -type f -exec cat {} + >/dev/null || fail "$1: files cannot be read"
	echo "$1" >"$TEST_DIR/clone/name"
	umount "$TEST_DIR/clone"
	timeout 60 e2fsck -fn "$loop" >"$TEST_DIR/e2fsck.out" 2>&1 || fail "$1: e2fsck -fn: $(cat "$TEST_DIR/e2fsck.out")"
	detach_loop "$loop"
}

cmp "$MNT/many-1.1" "$MNT/many-1.2" || fail "clones of one batch differ"
for name in "${names[@]}"; do
	case $name in
	many*) for i in 0 1 2; do check_ext4 "$MNT/$name.$i"; done ;;
	*) check_ext4 "$MNT/$name"; check_clone "$name" "$name" ;;
	esac
done
check_clone many-1.0 many-1
check_clone second second

# The live one was not disturbed.
umount "$TEST_DIR/fs"
timeout 60 e2fsck -fn "$live" >"$TEST_DIR/e2fsck.out" 2>&1 || fail "the live image: $(cat "$TEST_DIR/e2fsck.out")"
detach_loop "$live"
# The same after a crash.
crash_pool
mount_pool
check_ext4 "$image"
check_clone second second
unmount_pool
