# SPDX-License-Identifier: BSD-2-Clause
"""Reads: cold, of what a sibling has read, in sequence; from deep and from old images; and many guests at once.

Cold means that nothing is cached anywhere: daemons are started anew, the kernel's caches dropped, and every block is read at most once.
So that the page cache below vclonefs does not grow into a cache nobody gave it, its daemon runs in a memory group of cold_limit
bytes during these rows, with cold_options; where the machine has no memory groups the figures say so.
"""
import os

import machine
from groups import Group, PEERS
from results import Goal, Row


class Cold(Group):
    """Groups that read after everything cached is gone."""

    def go_cold(self, system):
        if system.name == "vclonefs":
            system.remount(self.config.cold_options)
            system.drop_caches()
        else:
            system.cold()

    def read_cold(self, system, image, seed, **options):
        """(result, usage) of fio reading one image that nobody has read yet."""
        self.go_cold(system)
        path = system.serve(image)
        with machine.memory_limit(f"vclonefs-bench-{os.getpid()}", self.config.cold_limit) as move:
            for pid in system.pids() if move else ():
                move(pid)
            result, cost = self.client.measured(system, path, options.pop("rw", "randread"), seed=seed, **options)
            for pid in system.pids() if move else ():
                cost["daemon_rss"] = machine.rss_bytes(pid)
        if system.name == "vclonefs":
            cost["memory_limit"] = self.config.cold_limit if move else "none"
        return result, cost


class ReadRandom(Cold):
    name = "read"
    row_systems = {"read-shared": PEERS, "read-shared-32": PEERS}
    rows = (
        Row("read-1", "4 KiB random read, depth 1, cold", "IOPS", "higher", [Goal(">= 0.75x raw", 0.75, ("raw",))],
            "fio psync on a fresh clone of the golden image, no block twice"),
        Row("read-32", "4 KiB random read, depth 32, cold", "IOPS", "higher", [Goal(">= 0.9x raw", 0.9, ("raw",))],
            "fio libaio, no block twice"),
        Row("read-shared", "4 KiB random read, depth 1, blocks a sibling has read", "IOPS", "higher",
            [Goal(">= 1.5x raw", 1.5, ("raw",))],
            "one clone is read in full (a region that fits the cache), then another; default caches"),
        Row("read-shared-32", "4 KiB random read, depth 32, blocks a sibling has read", "IOPS", "higher", [Goal(">= 1.5x raw", 1.5, ("raw",))], "fio libaio"),
    )

    def prepare(self, system):
        for name in self.siblings(system):
            system.clone("golden", name)

    @staticmethod
    def siblings(system):
        return ("sib-a", "sib-b") if system.name in PEERS else ("sib-a",)

    def measure(self, system, rep):
        numbers = int(self.config.read_numbers)
        for row, depth in (("read-1", 1), ("read-32", 32)):
            result, cost = self.read_cold(system, "sib-a", rep + 1, depth=depth, numbers=numbers)
            self.add(row, system, result["iops"], p99_us=result["p99_us"], blocks=result["ios"], **cost)
        if system.name not in PEERS:
            return
        system.cold()
        paths = [system.serve("sib-a"), system.serve("sib-b")]
        self.client.fio(paths[0], "read", block=1 << 20, size=self.config.shared_bytes)
        for row, depth in (("read-shared", 1), ("read-shared-32", 32)):
            result, cost = self.client.measured(system, paths[1], "randread", depth=depth, seconds=self.config.seconds,
                                                size=self.config.shared_bytes, seed=rep + 1)
            self.add(row, system, result["iops"], p99_us=result["p99_us"], **cost)

    def finish(self, system):
        for name in self.siblings(system):
            system.delete(name)
        system.settle()


class ReadSequential(Cold):
    name = "read-seq"
    rows = (
        Row("read-seq", "sequential 1 MiB read of the golden image, cold", "B/s", "higher", [Goal(">= 1.2x raw", 1.2, ("raw",))],
            "fio psync, a fresh clone from beginning to end"),
        Row("read-seq-8", "sequential 1 MiB read, 8 requests at once, cold", "B/s", "higher", [Goal(">= 1.2x raw", 1.2, ("raw",))], "fio libaio"),
    )

    def prepare(self, system):
        system.clone("golden", "seq")

    def measure(self, system, rep):
        for row, depth in (("read-seq", 1), ("read-seq-8", 8)):
            result, cost = self.read_cold(system, "seq", rep + 1, rw="read", depth=depth, block=1 << 20)
            self.add(row, system, result["bytes_per_s"], per="MiB", **cost)

    def finish(self, system):
        system.delete("seq")


class ReadDeep(Cold):
    """An image at the end of a long chain against the one at its beginning."""
    name = "read-depth"
    systems = ("vclonefs",)
    rows = (
        Row("read-depth-1", "random read at depth 1,000 of cloning against depth 0", "x", "higher",
            [Goal(">= 0.97x", 0.97, at_least=True)], "cold; every clone of the chain was written to"),
        Row("read-depth-32", "random read at depth 1,000 of cloning against depth 0, 32 at once", "x", "higher", [Goal(">= 0.97x", 0.97, at_least=True)], "cold"),
    )

    def prepare(self, system):
        self.depth = self.config.depth
        self.client.clones(system.timer, system.dir, "golden", "-n", self.depth, "-c", 0)
        system.settle()

    def pair(self, system, row, rep, images, depth):
        """The second image's speed as a part of the first's; which is read first changes."""
        iops = {}
        order = images if rep % 2 == 0 else images[::-1]
        for image in order:
            result, cost = self.read_cold(system, image, rep + 1, depth=depth, numbers=self.config.read_numbers)
            iops[image] = result["iops"]
        self.add(row, system, iops[images[1]] / iops[images[0]], iops_before=iops[images[0]], iops_after=iops[images[1]], **cost)

    def measure(self, system, rep):
        last = f"clone-{self.depth - 1:07d}"
        self.pair(system, "read-depth-1", rep, ["golden", last], 1)
        self.pair(system, "read-depth-32", rep, ["golden", last], 32)

    def finish(self, system):
        for i in range(self.depth):
            system.delete(f"clone-{i:07d}")
        system.settle()


class ReadAged(ReadDeep):
    """An image that was overwritten at random again and again, and cleaned, against one with the same content written in sequence."""
    name = "read-age"
    rows = (
        Row("read-age-1", "random read of an aged image against a fresh one", "x", "higher",
            [Goal(">= 0.95x", 0.95, at_least=True)], "cold; aged: all of it overwritten at random several times; fresh: its copy"),
        Row("read-age-32", "random read of an aged image against a fresh one, 32 at once", "x", "higher", [Goal(">= 0.95x", 0.95, at_least=True)], "cold"),
        Row("read-age-seq", "sequential 1 MiB read, aged against fresh", "x", "higher", [Goal(">= 0.95x", 0.95, at_least=True)],
            "cold"),
    )

    def prepare(self, system):
        system.clone("golden", "aged")
        for i in range(self.config.age_rounds):
            # With a map of its own per round fio leaves out nothing and takes another order each time.
            self.client.fio(system.serve("aged"), "randwrite", depth=32, seed=100 + i, size=self.config.age_bytes)
            system.settle()
        self.work.run("dd", f"if={system.image('aged')}", f"of={system.image('fresh')}", "bs=1M", "conv=fsync", "status=none")
        system.settle()

    def measure(self, system, rep):
        size = self.config.age_bytes
        self.pair_sized(system, "read-age-1", rep, size, depth=1, numbers=self.config.read_numbers)
        self.pair_sized(system, "read-age-32", rep, size, depth=32, numbers=self.config.read_numbers)
        self.pair_sized(system, "read-age-seq", rep, size, rw="read", block=1 << 20)

    def pair_sized(self, system, row, rep, size, **options):
        speed = {}
        for image in ("fresh", "aged") if rep % 2 == 0 else ("aged", "fresh"):
            result, cost = self.read_cold(system, image, rep + 1, size=size, **options)
            speed[image] = result["bytes_per_s"]
        self.add(row, system, speed["aged"] / speed["fresh"], bytes_per_s_fresh=speed["fresh"], bytes_per_s_aged=speed["aged"],
                 **cost)

    def finish(self, system):
        for name in ("aged", "fresh"):
            system.delete(name)
        system.settle()


class Storm(Group):
    """Guests that boot together: each reads the same part of its own image."""
    name = "storm"
    systems = ("vclonefs", "raw", "xfs", "btrfs", "qcow2")
    row_systems = {"storm-memory": ("vclonefs", "qcow2")}
    rows = (
        Row("storm", "20 clones each read the first half of the same image, O_DIRECT", "s", "lower",
            [Goal(">= 5x XFS reflink", 5, ("xfs",)), Goal(">= 5x raw copies", 5, ("raw",))],
            "cold; one client each, 128 KiB in sequence; time until the last is done; raw: 20 copies"),
        Row("storm-device", "read from the device meanwhile, by what each reads", "x", "lower", [Goal("<= 1x", 1.02)],
            "the kernel's counters of the device below; 2 % for what else the machine reads"),
        Row("storm-memory", "memory the daemons gained, by what each reads", "x", "lower", [Goal("<= 1.1x", 1.1)],
            "resident memory before and after (cache= large enough for that)"),
    )

    def names(self, system):
        names = [f"storm-{i}" for i in range(self.config.storm)]
        # The golden image is one of the copies: that saves the space of one.
        return names if system.has_clones else names[1:] + ["golden"]

    def prepare(self, system):
        for name in self.names(system):
            if name != "golden":
                system.clone("golden", name)

    def measure(self, system, rep):
        size = self.config.storm_bytes
        if system.name == "vclonefs":
            system.remount(f"cache={size + (64 << 20)},node_cache=64M")
            system.drop_caches()
        else:
            system.cold()
        paths = [system.serve(name) for name in self.names(system)]
        before = sum(machine.rss_bytes(pid) for pid in system.pids())
        result, cost = self.client.measured(system, paths, "read", block=128 << 10, size=size)
        gained = sum(machine.rss_bytes(pid) for pid in system.pids()) - before
        cost["seconds"] = result["seconds"]
        self.add("storm", system, result["seconds"], per="request of 128 KiB", clones=self.config.storm, bytes=result["bytes"], **cost)
        if "device_read" in cost:
            self.add("storm-device", system, cost["device_read"] / size)
        else:
            self.results.missing("storm-device", system.name, "the file system below has no single device")
        if system.pids():
            self.add("storm-memory", system, gained / size)

    def finish(self, system):
        for name in self.names(system):
            if name != "golden":
                system.delete(name)
        if system.name == "vclonefs":
            system.remount()
        system.settle()


GROUPS = [ReadRandom, ReadSequential, ReadDeep, ReadAged, Storm]
