# SPDX-License-Identifier: BSD-2-Clause
"""Writes into fresh clones, and imports."""
import time

import machine
from groups import Group, PEERS
from results import Goal, Row


class WriteSync(Group):
    """Each write followed by fdatasync, as a guest's database does it."""
    name = "write-sync"
    rows = (
        Row("write-sync", "4 KiB random write + fdatasync, depth 1, fresh clone", "IOPS", "higher",
            [Goal(">= 3x XFS clone", 3, ("xfs",)), Goal(">= 0.75x raw", 0.75, ("raw",))], "fio psync, fdatasync=1"),
        Row("write-sync-8", "4 KiB random write + fdatasync, 8 images at once", "IOPS", "higher", [Goal(">= 2x raw", 2, ("raw",))],
            "8 clients, one image each; sum"),
    )

    def measure(self, system, rep):
        names = [f"sync-{i}" for i in range(self.config.sync_images)]
        region = self.config.region_bytes
        for name in names:
            system.clone("golden", name, region)
        paths = [system.serve(name) for name in names]
        system.settle()
        for row, some in (("write-sync", paths[:1]), ("write-sync-8", paths)):
            result, cost = self.client.measured(system, some, "randwrite", seconds=self.config.seconds, size=region,
                                                fdatasync=True, seed=rep + 1)
            self.add(row, system, result["iops"], p99_us=result["p99_us"], **cost)
        for name in names:
            system.delete(name)


class WriteDeep(Group):
    """Longer than the log is, so that destage has to keep up."""
    name = "write-deep"
    systems = PEERS
    rows = (Row("write-deep", "4 KiB random write, depth 32, fresh clone, sustained past the log", "IOPS", "higher",
                [Goal(">= 2.5x best of XFS clone, btrfs clone, qcow2", 2.5, ("xfs", "btrfs", "qcow2")),
                 Goal(">= 0.6x raw", 0.6, ("raw",)), Goal(">= 0.8x raw (later)", 0.8, ("raw",))],
                "fio libaio over the whole image, half compressible; the log's size and what was written stand beside it"),)

    def prepare(self, system):
        # Written once before, so that no repetition is the first to use a part of the disk.
        self.measure_one(system, 0, self.config.seconds / 2)

    def measure_one(self, system, rep, seconds):
        system.clone("golden", "deep")
        path = system.serve("deep")
        system.settle()
        result, cost = self.client.measured(system, path, "randwrite", depth=32, seconds=seconds, seed=rep + 1)
        system.delete("deep")
        return result, cost

    def measure(self, system, rep):
        result, cost = self.measure_one(system, rep, self.config.deep_seconds)
        beside = {"p99_us": result["p99_us"], "written_bytes": result["bytes"], **cost}
        if system.name == "vclonefs":
            beside["log_bytes"] = self.config.log_bytes
            beside["times_log"] = round(result["bytes"] / self.config.log_bytes, 2)
        self.add("write-deep", system, result["iops"], **beside)

    def finish(self, system):
        system.settle()


class Import(Group):
    name = "import"
    systems = ("vclonefs", "raw", "xfs", "btrfs")
    absent = {"qcow2": "its golden image is a raw file on the file system below: see raw"}
    rows = (Row("import", "import by cp, then fsync", "B/s", "higher",
                [Goal(">= 0.8x cp to XFS + fsync", 0.8, ("xfs",)), Goal(">= 1.0x (later)", 1.0, ("xfs",))],
                "cp and sync FILE; the source is in the page cache"),)

    def prepare(self, system):
        self.work.run("dd", f"if={self.bench.golden}", "of=/dev/null", "bs=1M", "status=none")

    def measure(self, system, rep):
        usage = machine.Usage(self.bench.device, system.pids())
        start = time.perf_counter()
        system.copy_in(self.bench.golden, "imported")
        seconds = time.perf_counter() - start
        mib = self.config.golden_bytes >> 20
        self.add("import", system, self.config.golden_bytes / seconds, per="MiB", **usage.end(mib))
        system.delete("imported")


GROUPS = [WriteSync, WriteDeep, Import]
