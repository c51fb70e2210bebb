# SPDX-License-Identifier: BSD-2-Clause
"""Clients of a daemon whose allocations fail at random. For alloc-fail.sh.

    alloc-fail.py work STATE CONTROL RATE     random operations, while the daemon's allocations fail
    alloc-fail.py verify STATE                everything is as it was acknowledged

Each file is an array of blocks; each write fills some with a number of its own. What was refused with ENOMEM has changed nothing; what was refused as
the pool failed (EIO, EROFS) may be there or not.
"""
import mmap
import pickle

from vctest import *

BLOCK = 4096
BLOCKS = 64
OPERATIONS = 600
FILES = 8


class Client:
    def __init__(self, state):
        self.state = state
        self.files, self.doubt, self.number = {}, {}, 0  # name -> numbers; name -> what it may be instead, None: no such name
        if os.path.exists(state):
            with open(state, "rb") as f:
                self.files, self.number = pickle.load(f)
        self.buffer = mmap.mmap(-1, BLOCK * BLOCKS)
        self.counts = {}

    def save(self):
        with open(self.state, "wb") as f:
            pickle.dump((self.files, self.number), f)

    def read(self, name):
        fd = os.open(path(name), os.O_RDONLY | os.O_DIRECT)
        try:
            got = os.preadv(fd, [self.buffer], 0)
        finally:
            os.close(fd)
        numbers = []
        for i in range(0, got, BLOCK):
            block = self.buffer[i:i + BLOCK]
            check(block == block[:8] * (BLOCK // 8), f"{name}: block {i // BLOCK} is damaged")
            numbers.append(int.from_bytes(block[:8], "little"))
        return numbers

    def attempt(self, call, changed):
        """call(); then the files are as changed says, {name: numbers or None}. Returns whether the pool failed."""
        try:
            call()
        except OSError as e:
            self.counts[errno.errorcode[e.errno]] = self.counts.get(errno.errorcode[e.errno], 0) + 1
            if e.errno in (errno.EIO, errno.EROFS):
                self.doubt = changed
                return True
            check(e.errno == errno.ENOMEM, f"{call}: {e}")
            return False
        self.counts["done"] = self.counts.get("done", 0) + 1
        for name, numbers in changed.items():
            if numbers is None:
                self.files.pop(name)
            else:
                self.files[name] = numbers
        return False

    def write(self, name, rng, sync):
        n = rng.choice((1, 1, 2, 5, 16))
        start = rng.randrange(BLOCKS - n + 1)
        self.number += 1
        numbers = list(self.files[name])
        numbers += [0] * (start + n - len(numbers))
        numbers[start:start + n] = [self.number] * n
        data = mmap.mmap(-1, n * BLOCK)
        data[:] = self.number.to_bytes(8, "little") * (n * BLOCK // 8)
        flags = os.O_WRONLY | os.O_DIRECT | (os.O_DSYNC if sync else 0)
        try:
            fd = os.open(path(name), flags)
        except OSError as e:
            return self.attempt(lambda: (_ for _ in ()).throw(e), {})
        try:
            return self.attempt(lambda: same(os.pwritev(fd, [data], start * BLOCK), n * BLOCK), {name: numbers})
        finally:
            os.close(fd)

    def create(self, name):
        os.close(os.open(path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def sync(self, name):
        fd = os.open(path(name), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def step(self, rng):
        free = [n for n in (f"f{i}" for i in range(FILES)) if n not in self.files]
        if free and (not self.files or rng.random() < 0.1):
            made = lambda: self.create(free[0])
            failed = self.attempt(made, {free[0]: []})
            # The name may be made and the opening of it fail: that is another request.
            if not failed and free[0] not in self.files and os.path.lexists(path(free[0])):
                self.files[free[0]] = []
            return failed
        name = rng.choice(list(self.files))
        dice = rng.random()
        if dice < 0.6:
            return self.write(name, rng, dice < 0.2)
        if dice < 0.7:
            return self.attempt(lambda: same(self.read(name), self.files[name], name), {})
        if dice < 0.8:
            return self.attempt(lambda: self.sync(name), {})
        if dice < 0.86 and free:
            return self.attempt(lambda: ioctl("", CLONE, clone_arg(name, free[0])), {free[0]: list(self.files[name])})
        if dice < 0.92 and free:
            return self.attempt(lambda: os.rename(path(name), path(free[0])), {name: None, free[0]: self.files[name]})
        if dice < 0.96:
            return self.attempt(lambda: os.unlink(path(name)), {name: None})
        return self.attempt(lambda: os.listdir(MNT), {})

    def verify(self):
        names = sorted(os.listdir(MNT))
        want = dict(self.files)
        if self.doubt and names != sorted(want):
            for name, numbers in self.doubt.items():
                want[name] = numbers
            want = {k: v for k, v in want.items() if v is not None}
        same(names, sorted(want), "names")
        for name in names:
            found = self.read(name)
            if found != want[name]:
                same(found, self.doubt.get(name), name)
                want[name] = found
        return want


def main():
    what, state, *args = sys.argv[1:]
    client = Client(state)
    if what == "verify":
        client.verify()
        return
    control = open(args[0], "r+b", buffering=0)
    rng = seeded()
    control.write(struct.pack("=I", int(args[1])))
    failed = False
    for _ in range(OPERATIONS):
        failed = client.step(rng)
        if failed:
            break
    control.seek(0)
    control.write(struct.pack("=I", 0))
    struck = struct.unpack("=I", control.read(4))[0]
    if not failed:
        client.verify()
    print(f"{client.counts}, {struck} allocations failed so far; the pool {'failed' if failed else 'works'}", flush=True)
    with open(state + ".doubt", "wb") as f:
        pickle.dump(client.doubt, f)
    client.save()


def settle(state):
    """After a mount: what was in doubt is decided now."""
    client = Client(state)
    with open(state + ".doubt", "rb") as f:
        client.doubt = pickle.load(f)
    client.files = client.verify()
    client.save()


if sys.argv[1] == "settle":
    settle(sys.argv[2])
else:
    main()
