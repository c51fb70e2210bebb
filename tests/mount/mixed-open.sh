#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Buffered and direct descriptors of one image, whichever was first, see each other's writes at once; pages cached by an
# earlier open are not served after a change past the cache.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

cat >"$TEST_DIR/mixed.py" <<'END'
import mmap
import threading

from vctest import *

BLOCK = 4096
BLOCKS = 64


def page(byte):
    m = mmap.mmap(-1, BLOCK)
    m[:] = bytes([byte]) * BLOCK
    return m


def opened(flags):
    return os.open(path("image"), os.O_RDWR | flags)


def direct_read(fd, block):
    m = mmap.mmap(-1, BLOCK)
    same(os.preadv(fd, [m], block * BLOCK), BLOCK, "direct read")
    return m[:]


def turns(first, second):
    """Two descriptors write and read by turns; each read must be the latest write."""
    rng = seeded()
    write("image", bytes(BLOCK * BLOCKS))
    fds = [opened(first), opened(second)]
    # Fill the page cache through whoever uses it.
    for fd, flags in zip(fds, (first, second)):
        if not flags:
            os.pread(fd, BLOCK * BLOCKS, 0)
    for i in range(1, 800):
        writer, reader = rng.choice(fds), rng.choice(fds)
        block = rng.randrange(BLOCKS)
        same(os.pwritev(writer, [page(i % 251)], block * BLOCK), BLOCK, "write")
        same(direct_read(reader, block)[0], i % 251, f"round {i}: stale data")
    for fd in fds:
        os.close(fd)


def test_buffered_first():
    turns(0, os.O_DIRECT)


def test_direct_first():
    turns(os.O_DIRECT, 0)


def test_reopen():
    """Open, read (fills the cache), close; change past the cache; open again."""
    write("image", bytes(BLOCK * BLOCKS))
    for i in range(1, 60):
        fd = opened(0)
        os.pread(fd, BLOCK * BLOCKS, 0)
        os.close(fd)
        fd = opened(os.O_DIRECT)
        os.pwritev(fd, [page(i)], (i % BLOCKS) * BLOCK)
        os.close(fd)
        fd = opened(0)
        same(os.pread(fd, 1, (i % BLOCKS) * BLOCK), bytes([i]), f"round {i}: stale page")
        os.close(fd)


def test_mapping():
    """A mapping made before the direct write shows it after."""
    write("image", bytes(BLOCK * BLOCKS))
    buffered = opened(0)
    m = mmap.mmap(buffered, BLOCK * BLOCKS)
    sum(m[::BLOCK])
    direct = opened(os.O_DIRECT)
    for i in range(1, 100):
        os.pwritev(direct, [page(i)], (i % BLOCKS) * BLOCK)
        same(m[(i % BLOCKS) * BLOCK], i, f"round {i}: stale mapping")
    m.close()
    os.close(buffered)
    os.close(direct)


def test_readers_during_writes():
    """Cached readers all the time; when a direct write has returned, nobody may see older data."""
    write("image", bytes(BLOCK * BLOCKS))
    buffered = opened(0)
    direct = opened(os.O_DIRECT)
    stop = threading.Event()
    floor = [0] * BLOCKS
    bad = []

    def reader(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            block = rng.randrange(BLOCKS)
            least = floor[block]
            got = int.from_bytes(os.pread(buffered, 4, block * BLOCK), "little")
            if got < least:
                bad.append((block, got, least))

    threads = [threading.Thread(target=reader, args=(s,)) for s in range(3)]
    for t in threads:
        t.start()
    m = mmap.mmap(-1, BLOCK)
    for i in range(1, 6000):
        block = i * 7 % BLOCKS
        m[:4] = i.to_bytes(4, "little")
        os.pwritev(direct, [m], block * BLOCK)
        floor[block] = i
    stop.set()
    for t in threads:
        t.join()
    same(bad[:3], [], "older data after the write returned (block, got, at least)")


def test_range_clone():
    """A range cloned into an open image through the ioctl: size and pages."""
    write("source", b"S" * (BLOCK * 4))
    write("image", b"i" * BLOCK)
    fd = opened(0)
    os.pread(fd, BLOCK, 0)
    fcntl.ioctl(fd, CLONE_RANGE, range_arg(os.stat(path("source")).st_ino))
    same(os.pread(fd, BLOCK * 5, 0), b"S" * (BLOCK * 4), "pages")
    same(os.fstat(fd).st_size, BLOCK * 4, "size")
    os.close(fd)


for name, fn in list(globals().items()):
    if name.startswith("test_"):
        print(name, flush=True)
        fn()
END
python3 "$TEST_DIR/mixed.py" || fail "mixed"
unmount_pool

# A new kernel would hide some of our mistakes above, by dropping more pages than it has to. So look at the requests too.
DAEMON_FLAGS=-d mount_pool
export LOG
python3 - <<'END' || fail "requests"
import mmap
import re
import time

from vctest import *

ALL = 4 << 20
page = mmap.mmap(-1, 4096)


def log():
    with open(os.environ["LOG"], errors="replace") as f:
        text = f.read()
    return text[text.rindex("opcode: INIT"):]


def settle(handles=0):
    """Closing does not wait for the daemon: sleep until it has only so many handles."""
    while True:
        text = log()
        released = re.findall(r"unique: (\d+), opcode: RELEASE ", text)
        opened = text.count("opcode: OPEN ") + text.count("opcode: CREATE ")
        if opened - len(released) == handles and all(f"unique: {u}, success" in text for u in released):
            return
        time.sleep(0.01)


def count(what, call, handles=0):
    """Lines of the daemon's log with `what`, while call() runs and its handles are closed."""
    settle(handles)
    before = log().count(what)
    call()
    settle(handles)
    return log().count(what) - before


def cached(text, call, handles=0):
    """A call that asks nothing of the daemon. The kernel may be short of memory and drop a page: then again."""
    same(min(count(READ, call, handles) for _ in range(10)), 0, text)


def open_read(flags=os.O_RDONLY):
    fd = os.open(path("image"), flags)
    os.pread(fd, ALL, 0)
    os.close(fd)


def open_read_tail():
    """Far from where direct_write writes: the kernel drops that part by itself."""
    fd = os.open(path("image"), os.O_RDONLY)
    os.pread(fd, 4096, ALL - 4096)
    os.close(fd)


def direct_write():
    fd = os.open(path("image"), os.O_RDWR | os.O_DIRECT)
    os.pwritev(fd, [page], 0)
    os.close(fd)


READ = "opcode: READ "
NOTIFY = "NOTIFY: code=2"

write("image", bytes(ALL))
settle()
open_read()
cached("READs of an image that is cached and did not change", open_read)
direct_write()
check(count(READ, open_read_tail) > 0, "pages were kept over a direct write")
open_read()
cached("READs afterwards", open_read)

# A buffered descriptor beside a direct one does not cache.
direct = os.open(path("image"), os.O_RDWR | os.O_DIRECT)
open_read()
check(count(READ, open_read, 1) > 0, "a buffered descriptor caches beside a direct one")
os.close(direct)
settle()

# One that was there first does, and each direct write is invalidated before it is answered.
buffered = os.open(path("image"), os.O_RDONLY)
os.pread(buffered, ALL, 0)
cached("READs of a cached descriptor", lambda: os.pread(buffered, ALL, 0), 1)
same(count(NOTIFY, direct_write, 1), 1, "invalidations by a direct write")
os.close(buffered)
same(count(NOTIFY, direct_write), 0, "invalidations without a cached descriptor")
END
unmount_pool
