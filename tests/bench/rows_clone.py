# SPDX-License-Identifier: BSD-2-Clause
"""Clones: how long until one is durable, and what that depends on."""
import os
import statistics
import time

import machine
from groups import CLONING, Group
from results import Goal, Row

NO_CLONES = {"raw": "a plain file has no clones"}
SIZES = ((1 << 30, "1 GiB"), (1 << 40, "1 TiB"), (1 << 44, "16 TiB"))


def flat(limit=1.5):
    return [Goal(f"flat (<= {limit}x)", limit)]


def qcow2_clones(group, system, src, count, keep=False, first=0, chain=False):
    """qemu-img create -b, then fsync of the new file: a program each, which is how it is done."""
    times = []
    for i in range(first, first + count):
        dst = f"clone-{i:07d}"
        start = time.perf_counter()
        group.work.run(*system.create_command(src, dst))
        fd = os.open(system.image(dst), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        times.append((time.perf_counter() - start) * 1e6)
        if chain:
            src = dst
        elif not keep:
            os.unlink(system.image(dst))
    return times


def timed_clones(group, system, src, count, *options):
    if system.timer:
        return group.client.clones(system.timer, system.dir, src, "-n", count, *options)[0]
    return qcow2_clones(group, system, src, count)


class CloneLived(Group):
    """A golden image that was cloned and then lived: thousands of random writes, so it has many extents."""
    name = "clone"
    systems = CLONING
    absent = NO_CLONES
    rows = (
        Row("clone-ioctl", "clone an image that has lived, durable on return (ioctl)", "us", "lower",
            [Goal(">= 20x the best peer", 20, ("xfs", "btrfs", "qcow2"))],
            "median of one clone; source: a clone of the golden image with random 4 KiB writes all over it; peers: FICLONE + fsync, "
            "qemu-img create -b + fsync"),
        Row("clone-file", "clone an image that has lived, durable on return (.clone)", "us", "lower",
            [Goal(">= 20x the best peer", 20, ("xfs", "btrfs", "qcow2"))], "open, write and close of .clone; peers as above"),
    )

    def prepare(self, system):
        system.clone("golden", "lived")
        path = system.serve("lived")
        self.client.fio(path, "randwrite", depth=32, numbers=self.config.lived_writes)
        if system.name == "qcow2":
            system.release("lived")
        system.settle()

    def measure(self, system, rep):
        usage = machine.Usage(self.bench.device, system.pids())
        times = timed_clones(self, system, "lived", self.config.clones if system.name == "vclonefs" else self.config.peer_clones)
        cost = usage.end(len(times))
        self.add("clone-ioctl", system, statistics.median(times), p99=sorted(times)[len(times) * 99 // 100], **cost)
        if system.name == "vclonefs":
            usage = machine.Usage(self.bench.device, system.pids())
            times = self.client.clones("file", system.dir, "lived", "-n", self.config.clones)[0]
            cost = usage.end(len(times))
        self.add("clone-file", system, statistics.median(times), p99=sorted(times)[len(times) * 99 // 100], **cost)

    def finish(self, system):
        system.delete("lived")
        system.settle()


class CloneSize(Group):
    name = "clone-size"
    systems = ("vclonefs", "xfs", "btrfs")
    absent = {**NO_CLONES, "qcow2": "its time is that of starting qemu-img: see clone-ioctl"}
    rows = (Row("clone-size", "clone of a 16 TiB image against one of 1 GiB", "x", "lower", flat(),
                "ratio of medians; sparse images with the same number of blocks written, cloned in turn"),)

    def prepare(self, system):
        for size, _ in SIZES:
            with open(system.image(f"size-{size}"), "wb") as f:
                f.truncate(size)
                for i in range(self.config.sparse_blocks):
                    f.seek(i * (size // self.config.sparse_blocks) // 4096 * 4096)
                    f.write(os.urandom(2048) + bytes(2048))
                f.flush()
                os.fsync(f.fileno())
        system.settle()

    def measure(self, system, rep):
        names = [f"size-{size}" for size, _ in SIZES]
        medians = [statistics.median(t) for t in self.client.clones(system.timer, system.dir, names, "-n", self.config.clones)]
        self.add("clone-size", system, medians[-1] / medians[0], us_1GiB=medians[0], us_16TiB=medians[-1])
        self.results.add_series("clone-size", "clone latency by image size", "image size, GiB", "us",
                                {system.title: [(size / 2**30, m) for (size, _), m in zip(SIZES, medians)]})

    def finish(self, system):
        for size, _ in SIZES:
            system.delete(f"size-{size}")


class CloneCount(Group):
    """Latency in one pool before and after it got many images, and many in one call."""
    name = "clone-count"
    systems = ("vclonefs", "xfs", "btrfs")
    absent = {**NO_CLONES, "qcow2": "its time is that of starting qemu-img: see clone-ioctl"}
    row_systems = {"clone-batch": ("vclonefs",)}
    rows = (
        Row("clone-count", "clone among many images against among few", "x", "lower", flat(),
            "ratio of medians with and without that many more images in the directory; `make bench-scale` goes on to 100,000"),
        Row("clone-batch", "10,000 clones in one call, all durable", "s", "lower", [Goal("<= 1 s", 1)],
            "one VCLONEFS_IOC_CLONE_MANY"),
    )

    def measure(self, system, rep):
        many = self.config.batch if system.name == "vclonefs" else self.config.peer_count
        few = statistics.median(timed_clones(self, system, "golden", self.config.clones, "-f", 8000000))
        if system.name == "vclonefs":
            usage = machine.Usage(self.bench.device, system.pids())
            us = self.client.clones("many", system.dir, "golden", "-n", many)[0][0]
            self.add("clone-batch", system, us / 1e6, clones=many, **usage.end(many))
        else:
            timed_clones(self, system, "golden", many, "-k")
        lots = statistics.median(timed_clones(self, system, "golden", self.config.clones, "-f", 8000000))
        self.add("clone-count", system, lots / few, images=many, us_few=few, us_many=lots)
        self.results.add_series("clone-count", "clone latency by number of images", "images", "us",
                                {system.title: [(1, few), (many, lots)]})
        for i in range(many):
            system.delete(f"clone-{i:07d}")


class CloneDepth(Group):
    name = "clone-depth"
    systems = CLONING
    absent = NO_CLONES
    rows = (Row("clone-depth", "clone at the end of a chain of clones against its beginning", "x", "lower", flat(),
                "ratio of medians of the last and the first tenth; every clone is written to before it is cloned"),)

    def measure(self, system, rep):
        depth = self.config.depth if system.name == "vclonefs" else self.config.peer_depth
        if system.timer:
            times = self.client.clones(system.timer, system.dir, "golden", "-n", depth, "-c", 0)[0]
        else:
            times = qcow2_clones(self, system, "golden", depth, chain=True)
        tenth = max(depth // 10, 1)
        first, last = statistics.median(times[:tenth]), statistics.median(times[-tenth:])
        self.add("clone-depth", system, last / first, depth=depth, us_shallow=first, us_deep=last)
        if rep == 0:
            step = max(depth // 20, 1)
            points = [(i + step / 2, statistics.median(times[i:i + step])) for i in range(0, depth, step)]
            self.results.add_series("clone-depth", "clone latency by depth", "depth", "us", {system.title: points})
        for i in reversed(range(depth)):
            system.delete(f"clone-{i:07d}")


class CloneGuest(Group):
    """What a guest notices of its image being cloned."""
    name = "guest"
    systems = ("vclonefs", "xfs", "btrfs")
    absent = {**NO_CLONES, "qcow2": "a running overlay cannot be cloned from outside"}
    rows = (Row("guest-p99", "99th percentile of guest writes during clones of that image", "x", "lower",
                [Goal("<= 2x", 2)],
                "against the same writes without clones; 4 KiB random writes at depth 1, clones at even intervals"),)

    def prepare(self, system):
        system.clone("golden", "guest")

    def measure(self, system, rep):
        path = system.serve("guest")
        quiet = self.client.fio(path, "randwrite", seconds=self.config.seconds)
        system.settle()
        count = self.config.guest_clones if system.name == "vclonefs" else self.config.guest_peer_clones
        pace = int(self.config.seconds * 0.8e6 / count)

        def clones():
            start = time.monotonic()
            self.client.clones(system.timer, system.dir, "guest", "-n", count, "-p", pace)
            return time.monotonic() - start
        # Long enough for clones that take longer than they should: those that come after the load's end would not count.
        busy, took = self.client.fio_beside(path, "randwrite", clones, seconds=self.config.seconds)
        self.add("guest-p99", system, busy["p99_us"] / quiet["p99_us"], p99_quiet_us=quiet["p99_us"], p99_clones_us=busy["p99_us"],
                 iops_quiet=quiet["iops"], iops_clones=busy["iops"], clones=count, clones_took_s=round(took, 2))

    def finish(self, system):
        system.delete("guest")
        system.settle()


GROUPS = [CloneLived, CloneSize, CloneCount, CloneDepth, CloneGuest]
