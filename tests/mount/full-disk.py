# SPDX-License-Identifier: BSD-2-Clause
"""Fill a pool through its mount, from inside and outside: every error must be ENOSPC, everything accepted must be there."""
import errno
import json
import os
import random
import subprocess
import sys
import time

BLOCK = 65536
NAMES_MAX = 50000


class Full:
    def __init__(self, mnt, host, state):
        self.mnt, self.host, self.state = mnt, host, state
        self.files = {}  # name -> list of seeds, one a block, None: never accepted
        if os.path.exists(state):
            with open(state) as f:
                self.files = json.load(f)

    def save(self):
        with open(self.state, "w") as f:
            json.dump(self.files, f)

    @staticmethod
    def data(seed):
        return random.Random(seed).randbytes(BLOCK)

    def fill(self, name, size, step):
        """Write until ENOSPC, some through the log, some straight to chunks; fsync at times. Returns bytes accepted."""
        blocks = self.files.setdefault(name, [])
        fd = os.open(os.path.join(self.mnt, name), os.O_RDWR | os.O_CREAT, 0o600)
        accepted = 0
        try:
            while accepted < size:
                seed = random.getrandbits(48)
                data = self.data(seed)
                at = len(blocks) * BLOCK
                done = 0
                try:
                    while done < BLOCK:
                        done += os.pwrite(fd, data[done:done + step], at + done)
                    blocks.append(seed)
                    accepted += BLOCK
                    if len(blocks) % 16 == 0:
                        os.fsync(fd)
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise
                    os.ftruncate(fd, len(blocks) * BLOCK)
                    return accepted
            return accepted
        finally:
            os.fsync(fd)
            os.close(fd)

    def verify(self):
        for name, blocks in self.files.items():
            with open(os.path.join(self.mnt, name), "rb", buffering=0) as f:
                assert os.fstat(f.fileno()).st_size == len(blocks) * BLOCK, name
                for i, seed in enumerate(blocks):
                    assert os.pread(f.fileno(), BLOCK, i * BLOCK) == self.data(seed), f"{name}: block {i} is not what was accepted"

    def delete(self, name):
        os.unlink(os.path.join(self.mnt, name))
        self.files.pop(name)

    def vclone(self, what):
        subprocess.run([os.environ["VCLONE"], what, self.mnt], check=True, stdout=subprocess.DEVNULL)

    def cycles(self, n):
        """Full, then room again, n times: large writes and small ones, into one file and into several."""
        for i in range(n):
            step = (65536, 4096, 16384)[i % 3]
            names = [f"cycle-{i}-{k}" for k in range(1 + i % 4)]
            accepted = sum(self.fill(name, (1 << 40) if name == names[-1] else 1 << 20, step) for name in names)
            assert accepted > 0, f"cycle {i}: nothing was accepted"
            if i % 2:
                self.vclone("destage")
            if i % 8 == 0:
                self.verify()
            for name in names:
                self.delete(name)
            self.vclone("clean")
            # XFS gives back what was unlinked a moment later.
            until = time.monotonic() + 10
            again = self.fill("again", 2 << 20, step)
            while again < 2 << 20 and time.monotonic() < until:
                again += self.fill("again", (2 << 20) - again, step)
            assert again == 2 << 20, f"cycle {i}: nothing can be written after deleting: {again} bytes"
            self.verify()
            self.delete("again")
            self.vclone("clean")

    def foreign(self):
        """Somebody else takes every byte of the disk below."""
        try:
            fd = os.open(os.path.join(self.host, "foreign"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as e: # so full already that there is no room for a name
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return
        piece = 1 << 20
        while piece >= 4096:
            try:
                os.write(fd, b"x" * piece)
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                piece //= 2
        os.close(fd)

    def names(self):
        """Names and attributes without end, until they are refused. Returns how many there are."""
        n = 0
        try:
            while n < NAMES_MAX:
                path = os.path.join(self.mnt, f"dir-{n}-" + "x" * 200)
                os.mkdir(path)
                n += 1
                os.setxattr(path, "user.x", b"x" * 3000)
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise
            return n
        raise AssertionError("names are never refused")

    def nameless(self):
        for name in os.listdir(self.mnt):
            if name.startswith("dir-"):
                os.rmdir(os.path.join(self.mnt, name))


def main():
    mnt, host, state, what, *args = sys.argv[1:]
    full = Full(mnt, host, state)
    if what == "fill":
        print(full.fill(args[0], int(args[1]), int(args[2])))
    elif what == "names":
        print(full.names())
    elif what == "nameless":
        full.nameless()
    elif what == "verify":
        full.verify()
    elif what == "delete":
        full.delete(args[0])
    elif what == "cycles":
        full.cycles(int(args[0]))
    elif what == "foreign":
        full.foreign()
        return  # perhaps as a user who may not write the state
    full.save()


main()
