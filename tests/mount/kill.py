# SPDX-License-Identifier: BSD-2-Clause
"""Load for kill.sh, and the check of what the dead daemon had acknowledged.

    kill.py create LEDGER 0        make the first images
    kill.py load LEDGER ROUND      change them until the daemon dies
    kill.py verify LEDGER ROUND    what is there must be what the ledger says; what was under way may or may not have happened

An image is an array of units. Each holds a token, which no other write of any image has used, its own index, and bytes that follow from
both. So a unit tells which write it is from. A writer owns a range of units and is the only one to change it: its range is as it was after
some number of its operations, all acknowledged ones among them.
"""
import array
import copy
import ctypes
import mmap
import pickle
import subprocess
import threading
import time

from vctest import *

VCLONE = os.environ["VCLONE"]
FALLOC_PUNCH = 0x03  # with keep size
FALLOC_ZERO = 0x10
PATTERN = random.Random(1).randbytes(1 << 16)
IMAGES_MAX = 10
CLONES_MAX = 20
libc = ctypes.CDLL(None, use_errno=True)


class Image:
    def __init__(self, unit, tokens, solo=False):
        self.unit = unit
        self.tokens = tokens  # array of 64-bit numbers, 0: zeros
        self.solo = solo      # one writer, who also truncates


class Op:
    """Of a writer: w(rite), z(ero) of n units at start, t(runcate) to n units."""
    __slots__ = ("kind", "start", "n", "token", "issued", "acked")

    def __init__(self, kind, start, n, token):
        self.kind, self.start, self.n, self.token = kind, start, n, token
        self.issued = time.monotonic_ns()
        self.acked = None

    def in_pieces(self, unit):
        """The kernel may send it as several requests, each of which is one step."""
        return self.kind == "w" and (self.n * unit >= 1 << 20 or self.start * unit % 4096 != 0)

    def apply(self, tokens):
        if self.kind == "t":
            if self.n <= len(tokens):
                del tokens[self.n:]
            else:
                tokens.extend([0] * (self.n - len(tokens)))
            return
        end = self.start + self.n
        if end > len(tokens):
            tokens.extend([0] * (end - len(tokens)))
        tokens[self.start:end] = array.array("Q", [self.token] * self.n)


def unit_bytes(unit, token, index):
    if token == 0:
        return bytes(unit)
    head = struct.pack("<QQ", token, index)
    at = (token * 2654435761 + index * 97) % (len(PATTERN) - 4096)
    if token & 1:  # compresses well
        return head + PATTERN[at:at + 16] * (unit // 16 - 1)
    return head + PATTERN[at:at + unit - 16]


def read_tokens(name, unit):
    """The tokens of an image, every byte having been checked."""
    data = read(name)
    same(len(data) % unit, 0, f"{name}: size")
    tokens = array.array("Q")
    for index in range(len(data) // unit):
        piece = data[index * unit:(index + 1) * unit]
        token = int.from_bytes(piece[:8], "little")
        if piece != unit_bytes(unit, token, index):
            raise AssertionError(f"{name}: unit {index} of {unit} bytes is damaged, begins with {piece[:32].hex()}")
        tokens.append(token)
    return tokens


class Dead(Exception):
    pass


class World:
    """What all threads of the load share."""

    def __init__(self, ledger, round_):
        self.ledger = ledger
        self.round = round_
        self.device = os.stat(MNT).st_dev
        self.failure = None
        self.stop = threading.Event()

    def died(self):
        try:
            os.statvfs(MNT)
            return os.stat(MNT).st_dev != self.device
        except OSError:
            return True

    def call(self, fn, *args):
        """fn(*args); raises Dead if the daemon was killed meanwhile."""
        if self.stop.is_set():
            raise Dead
        try:
            return fn(*args)
        except (OSError, subprocess.CalledProcessError):
            if self.died():
                raise Dead from None
            raise

    def run(self, fn, *args):
        try:
            fn(*args)
        except Dead:
            pass
        except BaseException as e:  # the main thread reports it
            self.failure = self.failure or e
        self.stop.set()


# ---- writers ----

class Writer:
    def __init__(self, world, name, number, first, count, rng):
        self.world, self.name, self.number, self.rng = world, name, number, rng
        self.image = world.ledger["images"][name]
        self.first, self.count = first, count
        self.ops = []
        self.now = array.array("Q", self.image.tokens)  # right in its own range
        self.buffer = mmap.mmap(-1, 1 << 20)

    def open(self):
        flags = self.rng.choice((0, 0, os.O_DIRECT, os.O_DIRECT, os.O_DSYNC, os.O_DIRECT | os.O_DSYNC))
        return self.world.call(os.open, path(self.name), os.O_RDWR | flags)

    def run(self):
        fd = self.open()
        while not self.world.stop.is_set():
            dice = self.rng.random()
            if dice < 0.03:
                self.world.call(self.rng.choice((os.fsync, os.fdatasync)), fd)
            elif dice < 0.04:
                self.world.call(os.close, fd)
                fd = self.open()
            elif dice < 0.12:
                self.check(fd)
            else:
                self.change(fd)
            # Leave something to the other threads of this interpreter, and to the destager an idle moment.
            if self.rng.random() < 0.002:
                time.sleep(0.1)

    def check(self, fd):
        unit, index = self.image.unit, self.first + self.rng.randrange(self.count)
        got = self.world.call(os.preadv, fd, [memoryview(self.buffer)[:unit]], index * unit)
        want = unit_bytes(unit, self.now[index], index) if index < len(self.now) else b""
        if self.buffer[:got] != want:
            raise AssertionError(f"{self.name}: unit {index} of {unit} bytes read back wrong")

    def change(self, fd):
        unit = self.image.unit
        n = min(self.rng.choice((1, 1, 1, 1, 2, 5, 16, 64, (1 << 20) // unit)), self.count, (1 << 20) // unit)
        start = self.first + self.rng.randrange(self.count - n + 1)
        kind = self.rng.choices("wzt", (90, 9, 1 if self.image.solo else 0))[0]
        token = 0
        if kind == "t":
            start, n = 0, self.rng.randrange(self.count)
        elif kind == "z":
            n = min(n, max(0, len(self.now) - start))
            if n == 0:
                return
        else:
            token = self.world.round << 44 | self.number << 36 | len(self.ops) << 1 | self.rng.getrandbits(1)
            for i in range(n):
                self.buffer[i * unit:(i + 1) * unit] = unit_bytes(unit, token, start + i)
        op = Op(kind, start, n, token)
        self.ops.append(op)
        self.world.call(self.do, fd, op)
        op.acked = time.monotonic_ns()
        op.apply(self.now)

    def do(self, fd, op):
        unit = self.image.unit
        if op.kind == "t":
            os.ftruncate(fd, op.n * unit)
        elif op.kind == "z":
            mode = self.rng.choice((FALLOC_PUNCH, FALLOC_ZERO))
            r = libc.fallocate(fd, mode, ctypes.c_long(op.start * unit), ctypes.c_long(op.n * unit))
            if r < 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        else:
            n = os.pwritev(fd, [memoryview(self.buffer)[:op.n * unit]], op.start * unit)
            if n < op.n * unit:  # the kernel sends a long or unaligned write in pieces
                check(self.world.died(), f"{self.name}: only {n} of {op.n * unit} bytes written")
                raise Dead


# ---- clones ----

class Clone:
    def __init__(self, source, names, way):
        self.source, self.names, self.way = source, names, way
        self.issued = time.monotonic_ns()
        self.acked = None


class Cloner:
    def __init__(self, world, active, rng):
        self.world, self.active, self.rng = world, active, rng
        self.clones = []

    def run(self):
        still = []
        while len(self.clones) < CLONES_MAX and not self.world.stop.is_set():
            source = self.rng.choice(still) if still and self.rng.random() < 0.2 else self.rng.choice(self.active)
            way = self.rng.choice(("ioctl", "magic", "copy", "vclone", "many"))
            if way == "copy" and source in self.active and self.world.ledger["images"][source].solo:
                way = "ioctl"  # while the size changes, the kernel asks for a copy of what it was, in as many pieces as it changes
            name = f"c-{self.world.round}-{len(self.clones)}"
            clone = Clone(source, [name] if way != "many" else [f"{name}.{i}" for i in range(3)], way)
            self.clones.append(clone)
            self.world.call(getattr(self, "by_" + way), source, name)
            clone.acked = time.monotonic_ns()
            still.append(clone.names[-1])
            time.sleep(self.rng.random() * 0.1)

    def by_ioctl(self, source, name):
        ioctl(".", CLONE, clone_arg(source, name))

    def by_magic(self, source, name):
        fd = os.open(path(".clone"), os.O_WRONLY)
        try:
            os.write(fd, f"{source} {name}\n".encode())
        finally:
            os.close(fd)

    def by_copy(self, source, name):
        a = os.open(path(source), os.O_RDONLY)
        try:
            b = os.open(path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                while os.copy_file_range(a, b, 1 << 30) > 0:
                    pass
            finally:
                os.close(b)
        finally:
            os.close(a)

    def by_vclone(self, source, name):
        subprocess.run([VCLONE, "clone", path(source), path(name)], check=True, stderr=subprocess.DEVNULL)

    def by_many(self, source, name):
        subprocess.run([VCLONE, "clone", "-n", "3", path(source), path(name + ".%d")], check=True, stderr=subprocess.DEVNULL)


def maintain(world, rng):
    """Destage and clean at any time."""
    while not world.stop.is_set():
        if world.stop.wait(rng.random() * 0.8):
            break
        command = rng.choice(("destage", "clean"))
        world.call(lambda: subprocess.run([VCLONE, command, MNT], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


# ---- names ----

class Names:
    """Below names/: what path leads to which node, what each node is. One operation at a time."""

    def __init__(self, rng):
        self.rng = rng
        self.paths = {}  # path -> node number
        self.nodes = {}  # number -> dict
        self.next = 1
        self.held = []   # descriptors of unlinked files

    def __getstate__(self):
        return {"paths": self.paths, "nodes": self.nodes, "next": self.next}

    def __setstate__(self, state):
        self.__dict__.update(state, held=[], rng=None)

    def pick(self):
        """An operation that will work: (name, arguments...)."""
        dirs = [""] + [p for p, n in self.paths.items() if self.nodes[n]["type"] == "d"]
        files = [p for p, n in self.paths.items() if self.nodes[n]["type"] == "f"]
        others = [p for p, n in self.paths.items() if self.nodes[n]["type"] != "d"]
        new = os.path.join(self.rng.choice(dirs), f"n{self.rng.randrange(40)}")
        token = self.rng.randrange(1 << 32)
        taken = new in self.paths
        choices = []
        if not taken:
            choices += [("create", new)] * 4 + [("symlink", new, f"to/{token}"), ("mknod", new)]
            if len(dirs) < 6 and new.count("/") < 2:
                choices.append(("mkdir", new))
            if files:
                choices.append(("link", self.rng.choice(files), new))
        if others:
            old = self.rng.choice(others)
            choices += [("unlink", self.rng.choice(others))] * 2
            same_node = taken and self.paths[new] == self.paths[old]
            if not taken or (self.nodes[self.paths[new]]["type"] != "d" and not same_node):
                choices += [("rename", old, new)] * 4
        if files:
            f = self.rng.choice(files)
            choices += [("write", f, token)] * 3 + [("chmod", f, 0o600 | token % 64), ("setxattr", f, token), ("truncate", f, token % 5000)]
        empty = [d for d in dirs[1:] if not any(p.startswith(d + "/") for p in self.paths)]
        if empty:
            choices.append(("rmdir", self.rng.choice(empty)))
        if len(dirs) > 1 and not taken:
            d = self.rng.choice(dirs[1:])
            if not new.startswith(d + "/"):
                choices.append(("rename", d, new))
        return self.rng.choice(choices)

    def apply(self, op, p, arg=None):
        """The effect on the model."""
        fresh = {"create": dict(type="f", data=b"", mode=0o644, xattr=None), "symlink": dict(type="l", data=arg),
                 "mkdir": dict(type="d"), "mknod": dict(type="p")}
        if op in fresh:
            self.nodes[self.next] = fresh[op]
            self.paths[p] = self.next
            self.next += 1
        elif op == "link":
            self.paths[arg] = self.paths[p]
        elif op in ("unlink", "rmdir"):
            del self.paths[p]
        elif op == "rename":
            moved = {q: n for q, n in self.paths.items() if q == p or q.startswith(p + "/")}
            for q in moved:
                del self.paths[q]
            for q, n in moved.items():
                self.paths[arg + q[len(p):]] = n
        else:
            node = self.nodes[self.paths[p]]
            if op == "write":
                node["data"] = (b"%d." % arg) * 20
            elif op == "truncate":
                node["data"] = node["data"][:arg].ljust(arg, b"\0")
            else:
                node["mode" if op == "chmod" else "xattr"] = arg

    def do(self, op, p, arg=None):
        """The same on the mount."""
        full = path("names/" + p)
        if op == "create":
            os.close(os.open(full, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        elif op == "symlink":
            os.symlink(arg, full)
        elif op == "mknod":
            os.mkfifo(full)
        elif op == "unlink":
            if self.nodes[self.paths[p]]["type"] == "f" and len(self.held) < 20:
                self.held.append(os.open(full, os.O_RDWR))
            os.unlink(full)
        elif op in ("link", "rename"):
            getattr(os, op)(full, path("names/" + arg))
        elif op == "setxattr":
            os.setxattr(full, "user.test", b"%d" % arg)
        elif op == "write":
            self.write(full, (b"%d." % arg) * 20)
        else:
            getattr(os, op)(full, *(() if arg is None else (arg,)))

    def write(self, full, data):
        """Not atomic: shorter old data, then the new. Written so that each step is one."""
        fd = os.open(full, os.O_WRONLY)
        try:
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)

    def run(self, world):
        while not world.stop.is_set():
            op = self.pick()
            before = len(self.held)
            try:
                world.call(self.do, *op)
            except Dead:
                world.ledger["names_pending"] = op
                raise
            self.apply(*op)
            if len(self.held) > before:  # an unlinked file goes on living
                os.close(self.held.pop(0)) if len(self.held) > 15 else None

    def found(self):
        """The mount, in the form of a model: path -> description."""
        result = {}
        base = path("names")
        for top, dirs, files in os.walk(base):
            for name in dirs + files:
                full = os.path.join(top, name)
                st = os.lstat(full)
                kind = {0o04: "d", 0o10: "f", 0o12: "l", 0o01: "p"}[st.st_mode >> 12]
                entry = [kind, st.st_ino, st.st_nlink]
                if kind == "f":
                    with open(full, "rb") as f:
                        entry.append(f.read())
                    entry.append(st.st_mode & 0o7777)
                    entry.append(os.getxattr(full, "user.test") if os.listxattr(full) else None)
                elif kind == "l":
                    entry.append(os.readlink(full))
                result[os.path.relpath(full, base)] = entry
        return result

    def difference(self, found):
        """None, or in what the model and the mount differ."""
        if set(found) != set(self.paths):
            return f"names: only found {set(found) - set(self.paths)}, missing {set(self.paths) - set(found)}"
        inos = {}
        for p, number in self.paths.items():
            node, entry = self.nodes[number], found[p]
            if inos.setdefault(number, entry[1]) != entry[1]:
                return f"{p}: hard links are different files"
            want = [node["type"]]
            got = [entry[0]]
            if node["type"] != "d":
                want.append(list(self.paths.values()).count(number))
                got.append(entry[2])
            if node["type"] == "f":
                want += [node["data"], node["mode"], None if node["xattr"] is None else b"%d" % node["xattr"]]
            elif node["type"] == "l":
                want.append(node["data"])
            got += entry[3:]
            if want != got:
                return f"{p}: {short(got)} instead of {short(want)}"
        if len(set(inos.values())) != len(inos):
            return "two files with one inode number"
        return None

    def verify(self, pending):
        found = self.found()
        first = self.difference(found)
        if first is None:
            return self
        if pending is None:
            raise AssertionError(first)
        for model in self.possible(pending):
            if model.difference(found) is None:
                return model
        raise AssertionError(f"{first}; nor does it fit when {short(pending)} has happened, or a part of it")

    def possible(self, pending):
        after = copy.deepcopy(self)
        after.apply(*pending)
        yield after
        if pending[0] == "write":  # was not cut yet
            part = copy.deepcopy(self)
            node = part.nodes[part.paths[pending[1]]]
            new = (b"%d." % pending[2]) * 20
            node["data"] = new + node["data"][len(new):]
            yield part


# ---- the commands ----

def create(ledger_path):
    rng = seeded()
    images = {}
    token = 255 << 36
    for i, (unit, units, solo) in enumerate(((4096, 2048, False), (4096, 2048, False), (512, 3000, True), (4096, 1000, True))):
        token += 2
        tokens = array.array("Q", [token if rng.random() < 0.5 else 0 for _ in range(units)])
        images[f"i{i}"] = Image(unit, tokens, solo)
        write(f"i{i}", b"".join(unit_bytes(unit, t, k) for k, t in enumerate(tokens)))
    os.mkdir(path("names"))
    save(ledger_path, {"images": images, "names": Names(None), "names_pending": None, "writers": [], "clones": []})


def save(ledger_path, ledger):
    with open(ledger_path + ".new", "wb") as f:
        pickle.dump(ledger, f)
    os.rename(ledger_path + ".new", ledger_path)


def load_ledger(ledger_path):
    with open(ledger_path, "rb") as f:
        return pickle.load(f)


def load(ledger_path, round_):
    rng = random.Random(int(os.environ["VC_TEST_SEED"]) * 1000 + round_)
    ledger = load_ledger(ledger_path)
    world = World(ledger, round_)
    images = ledger["images"]
    active = rng.sample(sorted(images), min(4, len(images)))
    writers = []
    for name in active:
        image = images[name]
        parts = 1 if image.solo else 2
        size = 3000 if image.solo else len(image.tokens)
        for i in range(parts):
            writers.append(Writer(world, name, len(writers), size // parts * i, size // parts, random.Random(rng.random())))
    cloner = Cloner(world, active, random.Random(rng.random()))
    names = ledger["names"]
    names.rng = random.Random(rng.random())
    jobs = [(w.run,) for w in writers] + [(cloner.run,), (names.run, world),
                                          (maintain, world, random.Random(rng.random()))]
    threads = []
    for fn, *args in jobs:
        # The cloner may be done before the others.
        target = (lambda fn=fn, args=args: world.run(run_until_dead, world, fn, *args))
        threads.append(threading.Thread(target=target))
        threads[-1].start()
    open(ledger_path + ".begun", "w").close()
    for t in threads:
        t.join()
    if world.failure:
        raise world.failure
    ledger["writers"] = [(w.name, w.first, w.count, w.ops) for w in writers]
    ledger["clones"] = cloner.clones
    save(ledger_path, ledger)
    acked = sum(1 for w in writers for op in w.ops if op.acked)
    print(f"round {round_}: {acked} changes acknowledged, {sum(1 for c in cloner.clones if c.acked)} clones")


def run_until_dead(world, fn, *args):
    fn(*args)
    world.stop.wait()


def apply_all(tokens, ops):
    for op in ops:
        op.apply(tokens)


def range_matches(tokens, found, writer):
    name, first, count, ops = writer
    return tokens[first:first + count] == found[first:first + count]


def with_part(tokens, op, found):
    """tokens after a beginning of `op`, as found says."""
    after = array.array("Q", tokens)
    op.apply(after)
    if op.kind == "t":
        return after
    n = 0
    while n < op.n and op.start + n < len(found) and found[op.start + n] == op.token:
        n += 1
    part = array.array("Q", tokens)
    if n:
        Op(op.kind, op.start, n, op.token).apply(part)
    return part


def verify_image(name, image, writers):
    """All acknowledged, and of each writer's last operation all, nothing, or a beginning. Returns what is there."""
    found = read_tokens(name, image.unit)
    mine = [w for w in writers if w[0] == name]
    if not mine:
        same(found, image.tokens, f"{name}, which nobody has written to")
    for writer in mine:
        _, first, count, ops = writer
        tokens = array.array("Q", image.tokens)
        acked = [op for op in ops if op.acked]
        check(len(ops) - len(acked) <= 1, "test error: more than one operation under way")
        apply_all(tokens, acked)
        pending = ops[len(acked):]
        if range_matches(tokens, found, writer) and (not image.solo or len(tokens) == len(found)):
            continue
        if pending:
            after = with_part(tokens, pending[0], found)
            if range_matches(after, found, writer) and (not image.solo or len(after) == len(found)):
                continue
        explain(name, tokens, found, writer)
    return found


def explain(name, tokens, found, writer):
    _, first, count, ops = writer
    bad = [i for i in range(first, min(first + count, max(len(tokens), len(found))))
           if i >= len(tokens) or i >= len(found) or tokens[i] != found[i]]
    i = bad[0]
    want = tokens[i] if i < len(tokens) else None
    got = found[i] if i < len(found) else None
    known = {op.token: k for k, op in enumerate(ops)}
    raise AssertionError(f"{name}: {len(bad)} units lost or torn, {len(found)} units of {len(tokens)}; the first is {i}: found {got} "
                         f"(operation {known.get(got)}), acknowledged {want} (operation {known.get(want)} of {len(ops)})")


def moments(image, found, writer, issued, ended):
    """After how many of the writer's operations is its range as found? The least and the greatest such number."""
    name, first, count, ops = writer
    least = sum(1 for op in ops if op.acked and op.acked < issued)
    most = sum(1 for op in ops if op.issued < ended)
    tokens = array.array("Q", image.tokens)
    apply_all(tokens, ops[:least])
    fits = []
    for k in range(least, most + 1):
        if range_matches(tokens, found, writer) and (not image.solo or len(tokens) == len(found)):
            fits.append(k)
        if k < most:
            if ops[k].in_pieces(image.unit) and range_matches(with_part(tokens, ops[k], found), found, writer):
                fits.append(k)
            ops[k].apply(tokens)
    if not fits:
        tokens = array.array("Q", image.tokens)
        apply_all(tokens, ops[:least])
        bad = [i for i in range(first, min(first + count, len(tokens), len(found))) if tokens[i] != found[i]]
        raise AssertionError(f"is not as {name} was after {least} to {most} operations of the writer of units {first} to {first + count}; "
                             f"{len(bad)} units differ from the former: {bad[:8]}; sizes {len(found)} and {len(tokens)}")
    return fits[0], fits[-1]


def verify_clone(clone, name, image, writers):
    found = read_tokens(name, image.unit)
    mine = [w for w in writers if w[0] == clone.source]
    ended = clone.acked or 1 << 62
    if not mine:
        same(found, image.tokens, f"{name}, a clone of an image that does not change")
        return found
    try:
        fits = [moments(image, found, w, clone.issued, ended) for w in mine]
    except AssertionError as e:
        raise AssertionError(f"{name} (by {clone.way}) {e}") from None
    # One moment for all writers: an operation that had returned before another began is there if that one is.
    for (least, _), (_, _, _, ops) in zip(fits, mine):
        begun = ops[least - 1].issued if least else 0
        for (_, most), (_, _, _, other) in zip(fits, mine):
            check(sum(1 for op in other if op.acked and op.acked < begun) <= most, f"{name} (by {clone.way}) is not of one moment")
    return found


def verify_clones(ledger):
    images, there = ledger["images"], set(os.listdir(MNT))
    made = {}
    for clone in ledger["clones"]:
        present = [n for n in clone.names if n in there]
        if clone.acked:
            same(present, clone.names, f"clones by {clone.way} that were acknowledged")
        check(len(present) in (0, len(clone.names)), f"of one batch there are only {present}")
        source = images.get(clone.source) or made.get(clone.source)
        for name in present:
            if clone.way == "copy" and not clone.acked and os.stat(path(name)).st_size == 0 and source.tokens:
                os.unlink(path(name))  # the name was made, the content not yet
                continue
            made[name] = Image(source.unit, verify_clone(clone, name, source, ledger["writers"]), source.solo)
    return made


def verify(ledger_path):
    ledger = load_ledger(ledger_path)
    images = ledger["images"]
    made = verify_clones(ledger)
    now = {name: verify_image(name, image, ledger["writers"]) for name, image in images.items()}
    ledger["names"] = ledger["names"].verify(ledger["names_pending"])
    for name, tokens in now.items():
        images[name].tokens = tokens
    images.update(made)
    extra = set(os.listdir(MNT)) - set(images) - {"names", "fio"}
    check(not extra, f"nobody made {extra}")
    ledger.update(names_pending=None, writers=[], clones=[])
    if os.access(MNT, os.W_OK) and not os.statvfs(MNT).f_flag & os.ST_RDONLY:
        forget(images)
    save(ledger_path, ledger)


def forget(images):
    rng = random.Random(len(images))
    while len(images) > IMAGES_MAX:
        name = rng.choice(sorted(images))
        os.unlink(path(name))
        del images[name]


{"create": lambda p, r: create(p), "load": load, "verify": lambda p, r: verify(p)}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
