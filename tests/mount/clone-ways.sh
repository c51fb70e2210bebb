#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Every way to clone gives the same: a complete, independent copy that is there after the next mount: cp, copy_file_range, the ioctl from
# C, many in one call, the magic file, and FICLONE through the preload library.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

python3 -c '
import os, random, sys
r = random.Random(7)
with open(sys.argv[1], "wb") as f:
    for i in range(40):
        f.seek(i * 300000 + r.randrange(5000))
        f.write(r.randbytes(r.randrange(1, 70000)))
    f.truncate(13000001)' "$TEST_DIR/model"
cp "$TEST_DIR/model" "$MNT/golden"

cc=$(command -v cc || command -v gcc || command -v clang || :)
[ -n "$cc" ] || skip "no C compiler"
"$cc" -I"$SRC_DIR/src" -Wall -o "$TEST_DIR/clone" "$SRC_DIR/tests/mount/clone.c" || fail "clone.c does not compile"
preload=$BUILD_DIR/vclonefs-preload.so
if [ ! -e "$preload" ]; then
	preload=$TEST_DIR/preload.so
	"$cc" -I"$SRC_DIR/src" -Wall -shared -fPIC -o "$preload" "$SRC_DIR/contrib/preload/vclonefs-preload.c" ||
		fail "the preload library does not compile"
fi

mkdir "$MNT/dir"
cd "$MNT"
cp golden c-cp
cp --sparse=never golden c-never
cp -a golden c-archive
"$TEST_DIR/clone" "$MNT" golden c-ioctl
"$TEST_DIR/clone" "$MNT/dir" ../golden inside
"$TEST_DIR/clone" "$MNT/dir" /golden /c-absolute
"$TEST_DIR/clone" "$MNT/golden" '' c-own
"$TEST_DIR/clone" -n 20 "$MNT" golden 'c-many-%03d'
echo golden c-magic >.clone
echo ../golden inside-magic >dir/.clone
LD_PRELOAD=$preload cp --reflink=always golden c-preload
LD_PRELOAD=$preload cp --reflink=always c-preload dir/again
mv dir/inside c-inside
mv dir/inside-magic c-inside-magic
mv dir/again c-again
cd /

[ "$(find "$MNT" -name 'c-*' | wc -l)" -eq 31 ] || fail "clones: $(ls "$MNT")"
for clone in "$MNT"/c-*; do
	cmp "$clone" "$TEST_DIR/model" || fail "$clone differs"
done

# Without the library the kernel refuses, and outside of a vclonefs the library changes nothing.
want 1 cp --reflink=always "$MNT/golden" "$MNT/refused" 2>/dev/null
rm -f "$MNT/refused"
want 1 env LD_PRELOAD="$preload" cp --reflink=always "$MNT/golden" "$TEST_DIR/refused" 2>/dev/null
want 1 env LD_PRELOAD="$preload" cp --reflink=always "$TEST_DIR/model" "$MNT/refused" 2>/dev/null

# Independent: change each in another place, also the source.
i=0
for file in "$MNT/golden" "$MNT"/c-*; do
	printf 'private %04d' $i | dd of="$file" bs=1 seek=$((i * 5000)) conv=notrunc status=none
	i=$((i + 1))
done
check_private() {
	local i=0 file

	for file in "$MNT/golden" "$MNT"/c-*; do
		cp "$TEST_DIR/model" "$TEST_DIR/expected"
		printf 'private %04d' $i | dd of="$TEST_DIR/expected" bs=1 seek=$((i * 5000)) conv=notrunc status=none
		cmp "$file" "$TEST_DIR/expected" || fail "$file: a change elsewhere shows in it, or its own is lost"
		i=$((i + 1))
	done
}
check_private

python3 - <<'END' || fail "ranges and errors"
import threading

from vctest import *


def copy(src, dst, offset_in, offset_out, length):
    with open(path(src), "rb") as i, open(path(dst), "r+b") as o:
        return os.copy_file_range(i.fileno(), o.fileno(), length, offset_in, offset_out)


def test_ranges():
    """copy_file_range of any alignment, against a model."""
    rng = seeded()
    images = {name: bytearray(rng.randbytes(400000)) for name in ("r1", "r2")}
    for name, data in images.items():
        write(name, data)
    for i in range(150):
        src, dst = rng.choice(("r1", "r2")), rng.choice(("r1", "r2"))
        unit = rng.choice((1, 1, 512, 4096))
        offset_in, offset_out = rng.randrange(300000 // unit) * unit, rng.randrange(300000 // unit) * unit
        length = rng.randrange(1, 100000 // unit + 1) * unit
        if src == dst and offset_in < offset_out + length and offset_out < offset_in + length:
            raises(errno.EINVAL, copy, src, dst, offset_in, offset_out, length)
            continue
        n = copy(src, dst, offset_in, offset_out, length)
        same(n, min(length, len(images[src]) - offset_in), "bytes copied")
        images[dst][offset_out:offset_out + n] = images[src][offset_in:offset_in + n]
        same(read(dst), bytes(images[dst]), f"step {i}: {src} {offset_in} -> {dst} {offset_out}, {length} bytes")


def test_range_ioctl():
    write("g1", b"abcdefgh" * 4096)
    write("g2", b"z" * 100000)
    ino = os.stat(path("g1")).st_ino
    ioctl("g2", CLONE_RANGE, range_arg(ino, 4096, 8192, 12288), os.O_RDWR)
    expected = bytearray(b"z" * 100000)
    expected[12288:20480] = (b"abcdefgh" * 4096)[4096:12288]
    same(read("g2"), bytes(expected), "a range")
    raises(errno.EBADF, ioctl, "g2", CLONE_RANGE, range_arg(ino))
    raises(errno.EBADF, ioctl, "g2", CLONE_RANGE, range_arg(ino), os.O_RDWR | os.O_APPEND)
    raises(errno.EINVAL, ioctl, "g2", CLONE_RANGE, range_arg(ino, 1 << 40), os.O_RDWR)
    raises(errno.EINVAL, ioctl, "g2", CLONE_RANGE, range_arg(ino, 0, 1 << 40), os.O_RDWR)
    raises(errno.EISDIR, ioctl, "g2", CLONE_RANGE, range_arg(1), os.O_RDWR)
    raises(errno.EISDIR, ioctl, ".", CLONE_RANGE, range_arg(ino))


def test_range_ioctl_grows():
    """A file that grew by a range knows its size at once: copy_file_range and O_APPEND do not ask the daemon for it."""
    data = bytes(range(1, 252)) * 200
    write("grow-src", data)
    ino = os.stat(path("grow-src")).st_ino
    for old, at, size, flags in ((0, 0, 50200, 0), (10, 4096, 5000, 0), (5000, 4096, 4096, 0), (5000, 4096, 1500, 0), (0, 0, 1, 0),
                                 (4096, 4096, 1, 0), (100, 40, 200, 0), (4096, 0, 8192, os.O_DIRECT)):
        write("grown", b"old" * 4096)
        os.truncate(path("grown"), old)
        expected = (b"old" * 4096)[:old].ljust(at, b"\0")[:at] + data[:size]
        fd = os.open(path("grown"), os.O_RDWR | flags)
        out = os.open(path("grown-out"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        more = os.open(path("grown"), os.O_WRONLY | os.O_APPEND)
        if not flags:
            os.pread(fd, 65536, 0)
        fcntl.ioctl(fd, CLONE_RANGE, range_arg(ino, 0, size, at))
        n = os.copy_file_range(fd, out, 1 << 20, 0, 0)
        same(n, len(expected), f"bytes copied of {old} bytes grown by {size} at {at}")
        same(os.pread(out, 1 << 20, 0), expected, f"{old} bytes grown by {size} at {at}")
        os.write(more, b"more")
        same(read("grown"), expected + b"more", f"appended to {old} bytes grown by {size} at {at}")
        for f in (fd, out, more):
            os.close(f)


def test_parent():
    """The directory's times are right at once, though the kernel did not see the name being made."""
    os.mkdir(path("p"))
    os.utime(path("p"), ns=(1, 1))
    same(os.stat(path("p")).st_mtime_ns, 1, "before")
    ioctl("p", CLONE, clone_arg("../golden", "x"))
    check(os.stat(path("p")).st_mtime_ns > 1, "the ioctl left the directory's old time in the kernel")
    os.utime(path("p"), ns=(1, 1))
    os.stat(path("p"))
    with open(path("p/.clone"), "w") as f:
        f.write("x y")
    check(os.stat(path("p")).st_mtime_ns > 1, "the magic file left the directory's old time in the kernel")


def test_attributes():
    os.chmod(path("golden"), 0o6751)
    os.mkdir(path("sg"))
    os.chown(path("sg"), 0, 88)
    os.chmod(path("sg"), 0o2755)
    ioctl("sg", CLONE, clone_arg("../golden", "x"))
    st = os.stat(path("sg/x"))
    same((st.st_mode & 0o7777, st.st_uid, st.st_gid), (0o751, 0, 88), "mode and owner of a clone")
    os.chmod(path("golden"), 0o644)


def test_errors():
    def clone(src, dst, number=CLONE, name="."):
        ioctl(name, number, clone_arg(src, dst) if number == CLONE else clone_many_arg(src, dst, 0, 10))

    os.symlink("loop", path("loop"))
    os.mkfifo(path("fifo"))
    table = (
        (errno.EEXIST, "golden", "c-cp"),
        (errno.ENOENT, "none", "x"),
        (errno.ENOENT, "golden", "none/x"),
        (errno.ENOENT, "golden", ""),
        (errno.ENOTDIR, "golden", "c-cp/x"),
        (errno.ENOTDIR, "golden/x", "x"),
        (errno.EISDIR, "dir", "x"),
        (errno.EINVAL, "fifo", "x"),
        (errno.ELOOP, "loop", "x"),
        (errno.ENAMETOOLONG, "golden", "n" * 256),
        (errno.ENAMETOOLONG, "n" * 256, "x"),
        (errno.EISDIR, "", "x"),
    )
    for number, src, dst in table:
        raises(number, clone, src, dst)
    raises(errno.EINVAL, clone, "", "x", CLONE, "../mnt/dir/../.clone")
    for pattern in "x", "x-%d-%d", "%s", "%0d", "%10d", "%", "x%%", "%d%":
        raises(errno.EINVAL, clone, "golden", pattern, CLONE_MANY)
    raises(errno.EEXIST, clone, "golden", "c-many-%03d", CLONE_MANY)
    raises(errno.ENAMETOOLONG, ioctl, ".", CLONE_MANY, clone_many_arg("golden", "%d" + "n" * 250, 999990, 20))
    check(not [n for n in os.listdir(MNT) if n[0] in "0123456789x"], "a refused clone left a name")
    os.unlink(path("loop"))
    os.unlink(path("fifo"))


def test_create_race():
    """A name that a clone makes while somebody creates it with O_CREAT is opened, not reported as EEXIST."""
    stop = threading.Event()
    failed = []

    def creator():
        while not stop.is_set():
            try:
                os.close(os.open(path("race"), os.O_CREAT | os.O_RDWR))
            except OSError as e:
                failed.append(errno.errorcode[e.errno])

    threads = [threading.Thread(target=creator) for _ in range(2)]
    for t in threads:
        t.start()
    for _ in range(1500):
        for call in (lambda: ioctl(".", CLONE, clone_arg("golden", "race"))), (lambda: os.unlink(path("race"))):
            try:
                call()
            except (FileExistsError, FileNotFoundError):
                pass
    stop.set()
    for t in threads:
        t.join()
    check(failed.count("EEXIST") == 0, f"{failed[:3]}")
    if os.path.exists(path("race")):
        os.unlink(path("race"))


def test_point_in_time():
    """Blocks are written in rising order while clones are taken: none may have a later without the earlier ones."""
    blocks = 256
    write("running", bytes(4096 * blocks))
    stop = threading.Event()

    def writer():
        fd = os.open(path("running"), os.O_WRONLY)
        stamp = 0
        while not stop.is_set():
            stamp += 1
            for b in range(blocks):
                os.pwrite(fd, stamp.to_bytes(8, "little"), b * 4096)
        os.close(fd)

    t = threading.Thread(target=writer)
    t.start()
    for i in range(20):
        if i % 2:
            ioctl(".", CLONE, clone_arg("running", f"point-{i}"))
        else:
            with open(path("running"), "rb") as a, open(path(f"point-{i}"), "wb") as b:
                os.copy_file_range(a.fileno(), b.fileno(), 4096 * blocks)
    stop.set()
    t.join()
    for i in range(20):
        data = read(f"point-{i}")
        stamps = [int.from_bytes(data[b * 4096:b * 4096 + 8], "little") for b in range(blocks)]
        check(stamps == sorted(stamps, reverse=True) and stamps[0] - stamps[-1] <= 1, f"clone {i} is torn")
        os.unlink(path(f"point-{i}"))


for name, fn in list(globals().items()):
    if name.startswith("test_"):
        print(name, flush=True)
        fn()
END

remount_pool
check_private
rm "$MNT/golden"
i=1
for file in "$MNT"/c-*; do
	cp "$TEST_DIR/model" "$TEST_DIR/expected"
	printf 'private %04d' $i | dd of="$TEST_DIR/expected" bs=1 seek=$((i * 5000)) conv=notrunc status=none
	cmp "$file" "$TEST_DIR/expected" || fail "$file needs the deleted golden"
	i=$((i + 1))
done
unmount_pool
