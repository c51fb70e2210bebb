#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The bytes of one image, compared with a model: any alignment, every way to write, holes, the size.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

cat >"$TEST_DIR/data.py" <<'END'
import mmap
import threading

from vctest import *

SIZE = 6 << 20


def aligned(data):
    m = mmap.mmap(-1, max(len(data), 4096))
    m[:len(data)] = data
    return memoryview(m)[:len(data)]


def test_random_operations():
    """Buffered and direct handles by turns, in the same file, against a bytearray."""
    rng = seeded()
    model = bytearray()
    for step in range(600):
        direct = rng.random() < 0.4
        fd = os.open(path("model"), os.O_RDWR | os.O_CREAT | (os.O_DIRECT if direct else 0), 0o644)
        unit = 512 if direct else 1
        offset = rng.randrange(SIZE // unit) * unit
        length = rng.choice((1, 3, 8, 100, 300, 2100)) * (512 if direct else rng.choice((1, 97, 4096 // 8, 1024)))
        what = rng.random()
        if what < 0.45:
            data = rng.randbytes(length)
            same(os.pwrite(fd, aligned(data), offset), length, "written")
            if offset > len(model):
                model.extend(bytes(offset - len(model)))
            model[offset:offset + length] = data
        elif what < 0.85:
            buffer = aligned(bytes(length))
            n = os.preadv(fd, [buffer], offset)
            same(bytes(buffer[:n]), bytes(model[offset:offset + length]), f"step {step}: read {length} at {offset}")
        elif what < 0.92:
            size = rng.randrange(SIZE)
            os.ftruncate(fd, size)
            model = model[:size] + bytearray(max(0, size - len(model)))
        else:
            punch(fd, offset, length)
            end = min(len(model), offset + length)
            if offset < end:
                model[offset:end] = bytes(end - offset)
        same(os.fstat(fd).st_size, len(model), f"step {step}: size")
        os.close(fd)
    same(read("model"), bytes(model), "at the end")
    with open(os.environ["TEST_DIR"] + "/model", "wb") as f:
        f.write(model)


def fallocate(fd, mode, offset, length):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate64(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def punch(fd, offset, length):
    fallocate(fd, 3, offset, length)


def test_fallocate():
    fd = os.open(path("alloc"), os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 100000)
    same(os.fstat(fd).st_size, 100000, "mode 0 grows")
    fallocate(fd, 1, 0, 200000)
    same(os.fstat(fd).st_size, 100000, "KEEP_SIZE does not")
    os.pwrite(fd, b"x" * 100000, 0)
    fallocate(fd, 16, 10, 20)
    same(os.pread(fd, 40, 0), b"x" * 10 + bytes(20) + b"x" * 10, "ZERO_RANGE")
    fallocate(fd, 16, 99999, 11)
    same(os.fstat(fd).st_size, 100010, "ZERO_RANGE grows")
    raises(errno.EOPNOTSUPP, fallocate, fd, 8, 0, 4096)
    raises(errno.EOPNOTSUPP, fallocate, fd, 32, 0, 4096)
    raises(errno.EINVAL, fallocate, fd, 0, 0, 0)
    os.close(fd)


def test_seek():
    fd = os.open(path("holes"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 10 << 20)
    os.pwrite(fd, b"d" * 8192, 1 << 20)
    os.pwrite(fd, b"d", 5 << 20)
    found = []
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            same(e.errno, errno.ENXIO, "end of data")
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))
    same(found, [(1 << 20, (1 << 20) + 8192), (5 << 20, (5 << 20) + 4096)], "extents")
    same(os.lseek(fd, 0, os.SEEK_HOLE), 0, "a hole at the start")
    raises(errno.ENXIO, os.lseek, fd, 10 << 20, os.SEEK_DATA)
    raises(errno.ENXIO, os.lseek, fd, 10 << 20, os.SEEK_HOLE)
    punch(fd, 1 << 20, 4096)
    same(os.lseek(fd, 0, os.SEEK_DATA), (1 << 20) + 4096, "after a punch")
    os.close(fd)


def test_append():
    def appender(letter):
        fd = os.open(path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for i in range(200):
            os.write(fd, b"%c%06d\n" % (letter, i))
        os.close(fd)

    threads = [threading.Thread(target=appender, args=(c,)) for c in b"abcd"]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    lines = read("log").splitlines()
    same(len(lines), 800, "lines")
    for letter in b"abcd":
        same([int(l[1:]) for l in lines if l[0] == letter], list(range(200)), "order of one writer")


def test_append_large():
    """One write of several requests: the parts may overtake each other on the way."""
    data = b"".join(struct.pack("<Q", i) for i in range((5 << 20) // 8))
    for flags in 0, os.O_DIRECT:
        fd = os.open(path("large"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | flags)
        for _ in range(3):
            same(os.write(fd, aligned(data)), len(data), "written")
        os.close(fd)
        check(read("large") == data * 3, "a large append arrived in another order")


def test_mmap():
    data = os.urandom(300000)
    write("map", data)
    with open(path("map"), "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
        same(m[:], data, "mapped")
        m[100000:100005] = b"MMMMM"
        m.flush()
        m.close()
    fd = os.open(path("map"), os.O_RDONLY | os.O_DIRECT)
    buffer = aligned(bytes(4096))
    os.preadv(fd, [buffer], 98304)
    same(bytes(buffer[1696:1701]), b"MMMMM", "a flushed mapping")
    m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    same(m[100000:100005], b"MMMMM", "a shared mapping of a direct descriptor")
    m.close()
    os.close(fd)


def durable(fd):
    """The number of the last record that is on stable storage, and of the last one."""
    buffer = bytearray(df_arg())
    fcntl.ioctl(fd, DF, buffer)
    return struct.unpack_from("<2Q", buffer, 24 + 10 * 8)


def test_sync_writes():
    """What asks for durability is on the disk when it returns, with everything before it."""
    plain = os.open(path("sync"), os.O_RDWR | os.O_CREAT | os.O_DIRECT)

    def synced(text, call):
        while True: # until there is something to be synced; a checkpoint may have done it just now
            os.pwrite(plain, aligned(b"n" * 4096), 8192)
            on_disk, last = durable(plain)
            if on_disk < last:
                break
        call()
        on_disk, last = durable(plain)
        check(on_disk >= last, f"{text}: only record {on_disk} of {last} is on the disk")

    for flags in os.O_DSYNC, os.O_SYNC, os.O_DSYNC | os.O_DIRECT:
        fd = os.open(path("sync"), os.O_WRONLY | flags)
        synced(f"a write with flags {flags:o}", lambda: same(os.pwrite(fd, aligned(b"s" * 4096), 0), 4096, "written"))
        os.close(fd)
    synced("RWF_DSYNC", lambda: same(os.pwritev(plain, [aligned(b"r" * 4096)], 4096, os.RWF_DSYNC), 4096, "RWF_DSYNC"))
    buffered = os.open(path("sync"), os.O_RDWR)
    for fd in plain, buffered:
        synced("fsync", lambda: os.fsync(fd))
        synced("fdatasync", lambda: os.fdatasync(fd))
    os.close(buffered)
    os.close(plain)


def test_limits():
    fd = os.open(path("limits"), os.O_RDWR | os.O_CREAT)
    most = 1 << 46
    os.ftruncate(fd, most)
    same(os.fstat(fd).st_size, most, "the largest image")
    same(os.pread(fd, 10, most - 10), bytes(10), "its end")
    same(os.pwrite(fd, b"end", most - 3), 3, "written at its end")
    raises(errno.EFBIG, os.ftruncate, fd, most + 1)
    raises(errno.EFBIG, os.ftruncate, fd, (1 << 63) - 1)
    raises(errno.EFBIG, os.pwrite, fd, b"x", most)
    raises(errno.EFBIG, fallocate, fd, 0, (1 << 62), 1 << 61)
    same(os.pread(fd, 10, (1 << 62)), b"", "far beyond the end")
    os.close(fd)
    os.unlink(path("limits"))


def test_truncate_open():
    write("trunc", b"x" * 10000)
    write("trunc", b"short")
    same(read("trunc"), b"short", "O_TRUNC")
    os.truncate(path("trunc"), 9000)
    same(read("trunc"), b"short" + bytes(8995), "grown")


for name, fn in list(globals().items()):
    if name.startswith("test_"):
        print(name, flush=True)
        fn()
END
export TEST_DIR
python3 "$TEST_DIR/data.py" || fail "data"

# QEMU asks this to know that it may do 512-byte I/O.
python3 -c '
from vctest import *
same(struct.unpack("<3I", ioctl("model", DIOINFO, bytes(12))), (512, 512, 1 << 20), "XFS_IOC_DIOINFO")
raises(errno.ENOTTY, ioctl, ".", DIOINFO, bytes(12))' || fail "DIOINFO"

remount_pool
cmp "$MNT/model" "$TEST_DIR/model" || fail "different after mounting again"
remount_pool ro
cmp "$MNT/model" "$TEST_DIR/model" || fail "different when read-only"
(: >"$MNT/new") 2>/dev/null && fail "a read-only mount took a file"
unmount_pool
