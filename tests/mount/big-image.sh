#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A golden image of more than 4 GiB with real files: cp in, cloned in five ways, each the same; the clones are mounted through loop devices,
# written to independently, and checked; all the same after the daemon was killed.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

SIZE_MIB=4500 # copy_file_range comes in pieces beyond 4 GiB - 4 KiB
need_loops
[ "$(df --output=avail --block-size=1M "${TMPDIR:-/tmp}" | tail -n 1)" -ge 4000 ] || skip "less than 4 GB free below ${TMPDIR:-/tmp}"
setup_pool
setup_load
export MNT

# Real files worth some hundred MiB, fewer with sanitizers; also at the end of the image.
raw=$TEST_DIR/golden.raw
mkdir "$TEST_DIR/stage" "$TEST_DIR/a" "$TEST_DIR/b"
sum=0 most=250
has_asan && most=100
for dir in /usr/bin /usr/sbin /usr/lib/x86_64-linux-gnu/perl* /usr/share/perl /usr/lib/python3 /usr/share/doc /usr/include /usr/share/locale; do
	[ -d "$dir" ] || continue
	size=$(du -sm --one-file-system "$dir" | cut -f1)
	[ $((sum + size)) -le $most ] || continue
	sum=$((sum + size))
	cp -a --parents "$dir" "$TEST_DIR/stage" 2>/dev/null || :
done
truncate -s ${SIZE_MIB}M "$raw"
mkfs.ext4 -q -F -m 0 -d "$TEST_DIR/stage" "$raw" || fail "mkfs.ext4 -d"
rm -rf "$TEST_DIR/stage"
dd if=/dev/urandom of="$raw" bs=1M count=4 seek=$((SIZE_MIB - 4)) conv=notrunc status=none
python3 - "$raw" "$SIZE_MIB" <<'END2'
import os
import sys

# Marks at and around the place where pieces of copy_file_range meet: in blocks of the file system that were free at least
# in part, so what e2fsck looks at stays as it is.
with open(sys.argv[1], "r+b") as f:
    for at in (0xfffff000 - 8192, 0xfffff000, 0xfffff000 + 4096, 1 << 32):
        f.seek(at)
        if not any(f.read(4096)):
            f.seek(at)
            f.write(b"mark %016x" % at * 150)
END2
timeout 60 e2fsck -fn "$raw" >"$TEST_DIR/e2fsck.out" 2>&1 || fail "the raw image: $(cat "$TEST_DIR/e2fsck.out")"
echo "image of $SIZE_MIB MiB, $(du -m "$raw" | cut -f1) MiB of it filled"

mount_pool
golden=$MNT/golden.img
took_ms in_time 100 cp "$raw" "$golden"
echo "cp in: $ms ms"
preload=$BUILD_DIR/vclonefs-preload.so
ways=(cp ioctl magic vclone)
[ -e "$preload" ] && ways+=(preload) || echo "without the preload library, which was not built"
for way in "${ways[@]}"; do
	case $way in
	cp) took_ms in_time 30 cp "$golden" "$MNT/cp.img" ;;
	ioctl) took_ms in_time 30 python3 -c 'from vctest import *; ioctl(".", CLONE, clone_arg("golden.img", "ioctl.img"))' ;;
	magic) took_ms in_time 30 bash -c 'echo golden.img magic.img >"$MNT/.clone"' ;;
	vclone) took_ms in_time 30 "$VCLONE" clone "$golden" "$MNT/vclone.img" ;;
	preload) took_ms in_time 30 env LD_PRELOAD="$preload" cp --reflink=always "$golden" "$MNT/preload.img" ;;
	esac
	echo "clone by $way: $ms ms"
	# A copy of the bytes would take seconds.
	[ "$ms" -lt 2000 ] || fail "a clone by $way is not instant"
done

# What either of two says to be data must be the same in both; the holes of both need not be read.
cat >"$TEST_DIR/same.py" <<'END2'
import errno
import os
import sys


def data(fd, size):
    """The ranges of data, in whole MiB."""
    at, blocks = 0, set()
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO, e
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        blocks.update(range(start >> 20, (at - 1 >> 20) + 1))
    return blocks


fds = [os.open(name, os.O_RDONLY) for name in sys.argv[1:]]
size = os.fstat(fds[0]).st_size
assert size == os.fstat(fds[1]).st_size, "sizes differ"
blocks = sorted(data(fds[0], size) | data(fds[1], size))
assert len(blocks) > 50, "nearly no data"
for mib in blocks:
    assert os.pread(fds[0], 1 << 20, mib << 20) == os.pread(fds[1], 1 << 20, mib << 20), f"differs in MiB {mib}"
END2
same_bytes() { in_time 100 python3 "$TEST_DIR/same.py" "$raw" "$1"; }
in_time 100 cmp -i $((4000 << 20)) "$raw" "$MNT/cp.img" # holes too, across the place where pieces meet
for way in golden "${ways[@]}"; do
	same_bytes "$MNT/$way.img"
done

# Two at a time: what is written into one must not be in the other.
write_into() {
	local way=$1 point=$2

	echo "this is $way" >"$point/$way"
	dd if=/dev/urandom of="$point/random" bs=1M count=4 conv=fsync status=none
	sha256sum <"$point/random" >"$TEST_DIR/$way.sum"
	rm -rf "$point/usr/share/doc" "$point/usr/include"
	sync -f "$point"
}

check_in() {
	local way=$1 point=$2

	[ "$(cat "$point/$way")" = "this is $way" ] || fail "$way: a file is lost"
	[ "$(sha256sum <"$point/random")" = "$(cat "$TEST_DIR/$way.sum")" ] || fail "$way: a file is damaged"
	[ "$(find "$point" -maxdepth 1 -type f | wc -l)" -eq 2 ] || fail "$way: has another one's file: $(ls "$point")"
}

# for_two DO WAY WAY: both mounted at once.
for_two() {
	local loop_a loop_b

	attach_loop "$MNT/$2.img"
	loop_a=$loop
	attach_loop "$MNT/$3.img"
	loop_b=$loop
	timeout 60 mount "$loop_a" "$TEST_DIR/a" || fail "$2 cannot be mounted"
	timeout 60 mount "$loop_b" "$TEST_DIR/b" || fail "$3 cannot be mounted"
	$1 "$2" "$TEST_DIR/a"
	$1 "$3" "$TEST_DIR/b"
	umount "$TEST_DIR/a"
	umount "$TEST_DIR/b"
	for loop in $loop_a $loop_b; do
		timeout 60 e2fsck -fn "$loop" >"$TEST_DIR/e2fsck.out" 2>&1 || fail "$2 or $3: $(cat "$TEST_DIR/e2fsck.out")"
		detach_loop "$loop"
	done
}

for_two write_into cp ioctl
for_two write_into magic vclone
same_bytes "$golden"
[ ! -e "$MNT/preload.img" ] || same_bytes "$MNT/preload.img"
in_time 30 cp "$MNT/cp.img" "$MNT/again.img" # a clone of a changed clone
in_time 100 python3 "$TEST_DIR/same.py" "$MNT/cp.img" "$MNT/again.img"

crash_pool
took_ms mount_pool
echo "mounted after the kill in $ms ms"
same_bytes "$golden"
[ ! -e "$MNT/preload.img" ] || same_bytes "$MNT/preload.img"
for_two check_in cp ioctl
for_two check_in magic vclone
check_ext4 "$MNT/again.img"
destage_pool
rm "$golden"
clean_pool
[ ! -e "$MNT/preload.img" ] || same_bytes "$MNT/preload.img"
for_two check_in cp vclone
echo "pool: $(($(pool_kib) / 1024)) MiB, daemon: $(($(daemon_rss) / 1024)) MiB"
unmount_pool
