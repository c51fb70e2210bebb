# SPDX-License-Identifier: BSD-2-Clause
"""A guest on a pool whose disk begins to fail, and what it may find afterwards. For device-errors.sh.

    device-errors.py write LEDGER QMP KIND    write and sync; somewhere on the way the disk begins to fail; go on for a while
    device-errors.py read LEDGER QMP KIND     read all, right or EIO; somewhere on the way the disk begins to fail
    device-errors.py bad-sectors LEDGER QMP N [FILES] from now on N sectors cannot be read, in the pool's FILES (a file, or all below a directory)
    device-errors.py bad-disk LEDGER QMP      from now on nothing can be read
    device-errors.py look LEDGER [some]       read all, right or EIO; "some" of it must be EIO, and not all
    device-errors.py verify LEDGER            the disk is good again: everything acknowledged is there, and a prefix of the rest

There is one image and one writer. Each write of a unit has a number, which is in the unit together with where it lies. So the image tells
which write was the last one, and must then be what all up to that one make (D1, D2).
"""
import array
import fcntl
import json
import mmap
import pickle
import socket

from vctest import *

UNIT = 4096
UNITS = 1024
AFTER = 150  # operations that are tried once the disk fails
PATTERN = random.Random(1).randbytes(1 << 16)

RULES = {
    "flush-once": dict(iotype="flush", errno=errno.EIO, once=True),
    "flush": dict(iotype="flush", errno=errno.EIO),
    "flush-space": dict(iotype="flush", errno=errno.ENOSPC),
    "write-once": dict(iotype="write", errno=errno.EIO, once=True),
    "write": dict(iotype="write", errno=errno.EIO),
    "write-space": dict(iotype="write", errno=errno.ENOSPC),
    "read": dict(iotype="read", errno=errno.EIO),
}
FIEMAP = 0xC020660B  # FS_IOC_FIEMAP of linux/fs.h: header of 32 bytes, extents of 56
SECTOR = 512
SURE = ("flush-once", "flush", "flush-space", "write", "write-space")  # a sync must tell


def sectors_of(name):
    """Where the bytes of a file lie on the disk: (sector of the disk, number of sectors) for each extent that was written."""
    with open(name, "rb") as f:
        request = array.array("B", struct.pack("<QQIIII", 0, 2**64 - 1, 0, 0, 200, 0) + bytes(200 * 56))
        fcntl.ioctl(f, FIEMAP, request)
        n = struct.unpack_from("<I", request, 20)[0]
        extents = [struct.unpack_from("<QQQQQI", request, 32 + 56 * i) for i in range(n)]
    return [(physical // SECTOR, length // SECTOR) for _, physical, length, _, _, flags in extents if not flags & 0x80e]


def some_sectors(rng, n, part):
    """Sectors of files of the pool."""
    pool = os.environ["POOL"]
    part = os.path.join(pool, part)
    files = [part] if os.path.isfile(part) else [os.path.join(top, name) for top, _, names in os.walk(part) for name in names]
    extents = [(name, *e) for name in files for e in sectors_of(name)]
    chosen = [(name, first + rng.randrange(length)) for name, first, length in rng.choices(extents, k=n)]
    print(f"{n} sectors cannot be read: in {', '.join(sorted({os.path.relpath(name, pool) for name, _ in chosen}))}")
    return [sector for _, sector in chosen]


def break_disk(qmp, *rules):
    """From now on the disk is one that fails like that."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(qmp)
    f = s.makefile("rw")
    f.readline()
    for name, arguments in (
            ("qmp_capabilities", {}),
            ("blockdev-add", {"driver": "blkdebug", "node-name": "bad", "image": "image", "inject-error": [dict(rule, event="none") for rule in rules]}),
            ("blockdev-reopen", {"options": [{"driver": "raw", "node-name": "top", "file": "bad"}]})):
        f.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        f.flush()
        answer = json.loads(f.readline())
        while "event" in answer:
            answer = json.loads(f.readline())
        check("return" in answer, f"{name}: {answer}")
    s.close()


def unit_bytes(number, index):
    if number == 0:
        return bytes(UNIT)
    at = (number * 2654435761 + index * 97) % (len(PATTERN) - UNIT)
    return struct.pack("<QQ", number, index) + PATTERN[at:at + UNIT - 16]


def state_after(ops, k):
    units = [0] * UNITS
    for number, (start, n) in enumerate(ops[:k], 1):
        units[start:start + n] = [number] * n
    return units


def refused(e):
    check(e.errno in (errno.EIO, errno.EROFS), f"errno {errno.errorcode.get(e.errno)}")


class Guest:
    def __init__(self, ledger, rng):
        self.path, self.rng = ledger, rng
        self.ops, self.synced = [], 0  # (start, n) of each write; how many of them a sync has acknowledged
        if os.path.exists(ledger):
            with open(ledger, "rb") as f:
                self.ops, self.synced = pickle.load(f)
        self.buffer = mmap.mmap(-1, 64 * UNIT)
        self.acked = len(self.ops)  # writes up to here have returned
        self.failed_sync = False

    def save(self):
        with open(self.path, "wb") as f:
            pickle.dump((self.ops, self.synced), f)

    def open(self, flags=os.O_RDWR):
        return os.open(path("disk"), flags | os.O_CREAT | self.rng.choice((0, os.O_DIRECT)), 0o600)

    def write(self, fd):
        n = self.rng.choice((1, 1, 1, 2, 8, 32))
        start = self.rng.randrange(UNITS - n + 1)
        number = len(self.ops) + 1
        for i in range(n):
            self.buffer[i * UNIT:(i + 1) * UNIT] = unit_bytes(number, start + i)
        self.ops.append((start, n))
        same(os.pwritev(fd, [memoryview(self.buffer)[:n * UNIT]], start * UNIT), n * UNIT, "written")
        self.acked = number

    def sync(self, fd):
        wrote = self.acked
        self.rng.choice((os.fsync, os.fdatasync))(fd)
        check(not self.failed_sync, "a sync was acknowledged after one had failed")
        self.synced = wrote

    def step(self, fd):
        """One operation; whether it succeeded."""
        if self.rng.random() < 0.1:
            try:
                self.sync(fd)
            except OSError as e:
                refused(e)
                self.failed_sync = True
                return False
            return True
        try:
            self.write(fd)
        except OSError as e:
            refused(e)
            return False
        check(not self.failed_sync, "a write was accepted after a sync had failed")
        return True

    def work(self, qmp, kind):
        fd = self.open()
        os.ftruncate(fd, UNITS * UNIT)
        for _ in range(self.rng.randrange(50, 400)):
            check(self.step(fd), "refused while the disk was good")
        break_disk(qmp, RULES[kind])
        results = [self.step(fd) for _ in range(AFTER)]
        if not self.failed_sync:
            try:
                self.write(fd)
                self.sync(fd)
                results.append(True)
            except OSError as e:
                refused(e)
                self.failed_sync = True
        if kind in SURE:
            check(self.failed_sync, "no sync told that the disk fails")
        self.save()
        print(f"{kind}: {len(self.ops)} writes, {self.synced} synced; {results.count(True)} operations of {len(results)} succeeded on the failing disk; "
              f"{self.look(fd)} units not readable")
        try:
            os.close(fd)
        except OSError as e:
            refused(e)

    def look(self, fd):
        """What can be read is what was accepted last, or one of those that were refused. Returns how many units cannot."""
        errors = 0
        sure = state_after(self.ops, self.acked)
        for index in range(UNITS):
            try:
                os.preadv(fd, [memoryview(self.buffer)[:UNIT]], index * UNIT)
            except OSError as e:
                same(e.errno, errno.EIO, "read")
                errors += 1
                continue
            got = bytes(self.buffer[:UNIT])
            number = int.from_bytes(got[:8], "little")
            check(got == unit_bytes(number, index), f"unit {index} is damaged: {got[:32].hex()}")
            allowed = [sure[index]] + [i for i, (start, n) in enumerate(self.ops, 1) if start <= index < start + n and i > sure[index]]
            check(number in allowed, f"unit {index} is from write {number}, not from {allowed}")
        return errors

    def read(self, qmp, kind):
        fd = self.open(os.O_RDWR)
        break_disk(qmp, RULES[kind])
        errors = self.look(fd)
        check(errors > 0, "every read succeeded")
        print(f"{kind}: {errors} units not readable, none wrong")

    def bad_disk(self, qmp):
        break_disk(qmp, RULES["read"])

    def bad_sectors(self, qmp, n, part=""):
        break_disk(qmp, *[dict(RULES["read"], sector=sector) for sector in some_sectors(self.rng, int(n), part)])

    def look_only(self, some=None):
        try:
            fd = self.open(os.O_RDONLY)
        except OSError as e:
            same(e.errno, errno.EIO, "open")
            print("the image cannot be opened")
            return
        errors = self.look(fd)
        print(f"{errors} units not readable, none wrong")
        check(not some or 0 < errors < UNITS, "some should be not readable, and not all")

    def verify(self):
        found = []
        fd = os.open(path("disk"), os.O_RDONLY)
        for index in range(UNITS):
            got = os.pread(fd, UNIT, index * UNIT)
            found.append(int.from_bytes(got[:8], "little"))
            check(got == unit_bytes(found[-1], index), f"unit {index} is damaged: {got[:32].hex()}")
        k = max(found)
        check(state_after(self.ops, k) == found, f"not the state after {k} writes")
        # Later writes may have been to the same units; then the state says less than k.
        last = max(i for i in range(k, len(self.ops) + 1) if state_after(self.ops, i) == found)
        check(last >= self.synced, f"{self.synced} writes were synced, {last} are there")
        print(f"{last} of {len(self.ops)} writes are there, {self.synced} of them were synced")
        self.ops = self.ops[:last]
        self.synced = last
        self.save()


def main():
    what, ledger, *args = sys.argv[1:]
    guest = Guest(ledger, random.Random(f"{os.environ['VC_TEST_SEED']} {what} {args[1:]} {os.environ['ROUND']}"))
    {"write": guest.work, "read": guest.read, "verify": guest.verify, "look": guest.look_only,
     "bad-disk": guest.bad_disk, "bad-sectors": guest.bad_sectors}[what](*args)


main()
