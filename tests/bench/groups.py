# SPDX-License-Identifier: BSD-2-Clause
"""A group of rows is what is measured in one go: prepare once for each system, then in every repetition one measurement of each
system in turn (a different one first each time), then finish. What goes wrong with one system is that system's reason."""
import contextlib
import subprocess
import time

from work import Failed, NotMeasured, unmount

ALL = ("vclonefs", "raw", "fuse", "raw-xfs", "xfs", "btrfs", "qcow2")
PEERS = tuple(n for n in ALL if n != "fuse")
CLONING = ("vclonefs", "xfs", "btrfs", "qcow2")


class Group:
    name = ""
    rows = ()
    systems = ALL
    absent = {}          # system: why it has no part in this
    row_systems = {}     # row: systems that can have a figure in it, when they are fewer

    def __init__(self, bench):
        self.bench = bench
        self.work = bench.work
        self.client = bench.client
        self.config = bench.config
        self.results = bench.results

    def prepare(self, system):
        pass

    def measure(self, system, rep):
        raise NotImplementedError

    def finish(self, system):
        pass

    def add(self, row, system, value, **beside):
        self.results.add(row, system.name, value, **beside)


def note_missing(bench, group, name, reason):
    for row in group.rows:
        if name in group.row_systems.get(row.id, group.systems + tuple(group.absent)):
            bench.results.missing(row.id, name, reason)


@contextlib.contextmanager
def guarded(bench, group, name, step, broken):
    try:
        yield
    except (Failed, NotMeasured, OSError, ValueError, subprocess.SubprocessError) as e:
        reason = str(e) or type(e).__name__
        if not isinstance(e, NotMeasured):
            reason = f"{step} failed: {reason}"
            bench.trouble.append(f"{group.name}, {name}: {reason}")
        broken[name] = reason.replace(bench.work.dir, "...")
        note_missing(bench, group, name, broken[name])


def tidy(system, keep):
    """Delete the images that were not there before."""
    if system.name == "vclonefs" and (not system.daemon or system.daemon.poll() is not None):
        unmount(system.dir, patience=0)
        system.mount()
    for image in system.names() - keep:
        system.delete(image)
    system.settle()


def run_group(bench, group):
    start = time.monotonic()
    broken = {}
    names = [n for n in group.systems if n in bench.systems]
    before = {n: s.names() for n, s in bench.systems.items() if not s.reason}
    for name, reason in group.absent.items():
        if name in bench.systems:
            note_missing(bench, group, name, reason)
    for name in names:
        if bench.systems[name].reason:
            broken[name] = bench.systems[name].reason
            note_missing(bench, group, name, broken[name])
            continue
        with guarded(bench, group, name, "preparing", broken):
            group.prepare(bench.systems[name])
    for rep in range(bench.config.reps):
        first = rep % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if name not in broken:
                with guarded(bench, group, name, f"repetition {rep + 1}", broken):
                    group.measure(bench.systems[name], rep)
                    bench.systems[name].settle()
    for name in names:
        if name not in broken:
            with guarded(bench, group, name, "finishing", broken):
                group.finish(bench.systems[name])
        # What a failure left must not be in the way of the next group.
        if name in broken and name in before:
            with guarded(bench, group, name, "tidying", {}):
                tidy(bench.systems[name], before[name])
    for pool in [p for p in bench.pools if p not in bench.systems.values()]:
        with contextlib.suppress(Failed, OSError):
            pool.remove()
    bench.results.seconds[group.name] = round(time.monotonic() - start, 1)
