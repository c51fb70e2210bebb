#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench.py: vclonefs beside plain files, XFS and btrfs reflink clones and qcow2 overlays, on one disk, in one run.

usage: bench.py [--mode full|quick|smoke] [--only ROW,...] [--systems NAME,...] [--dir DIR] [--out DIR] [--reps N] [--list]

Needs root, /dev/fuse, loop devices, fio; a peer whose programs are missing is reported as not measured. Everything is made in one new
directory below --dir (default: $TMPDIR or /var/tmp), which is removed at the end, also of a run that fails or is interrupted.
Results: JSON and plots in --out. Exit status: 0 done; 1 something could not be measured that should have been; 2 usage; 77 cannot run here.
"""
import argparse
import os
import sys
import time
import traceback

sys.dont_write_bytecode = True

import config
import content
import groups
import machine
import plot
import results
import rows_clone
import rows_pool
import rows_read
import rows_write
import systems
import work
from client import Client
from vclone_system import VcloneFs

GROUPS = rows_write.GROUPS + rows_read.GROUPS + rows_clone.GROUPS + rows_pool.GROUPS
SYSTEMS = [VcloneFs] + systems.peers()


def say(text):
    print(text, flush=True)


class Bench:
    """What the groups share."""

    def __init__(self, options):
        self.config = config.MODES[options.mode]()
        if options.reps:
            self.config.reps = options.reps
        self.build = os.path.realpath(options.build)
        self.results = results.Results()
        self.trouble = []
        self.systems = {}
        self.pools = []
        for program in ("vclone", "vclonefs", "tests/bench/bench_clone", "tests/bench/bench_fuse", "tests/bench/bench_pool"):
            if not os.access(os.path.join(self.build, program), os.X_OK):
                raise work.NotMeasured(f"{program} is not built; run make bench, or name the build directory with --build")
        if machine.version("fio", "--version") == "missing":
            raise work.NotMeasured("fio is not installed")
        self.work = work.Work(options.dir, self.config.disk_bytes, say)
        self.client = Client(self)
        self.device = machine.Device(self.work.dir)
        self.golden = None

    def tool(self, *args):
        """bench_pool; its figures."""
        out = self.work.run(os.path.join(self.build, "tests/bench/bench_pool"), *args)
        return {name: int(value) for name, value in (line.split() for line in out.splitlines())}

    def ideal(self, nblocks, path, *base):
        return self.tool("ideal", nblocks, path, *base)

    def start_systems(self, names):
        self.golden, self.content = content.make_golden(self.work, self.config.golden_bytes, self.ideal)
        for kind in SYSTEMS:
            if kind.name not in names:
                continue
            system = kind(self)
            system.reason = None
            self.systems[kind.name] = system
            try:
                system.start()
            except (work.NotMeasured, work.Failed, OSError) as e:
                system.reason = str(e).replace(self.work.dir, "...")
                if not isinstance(e, work.NotMeasured):
                    self.trouble.append(f"{kind.name}: {system.reason}")
                say(f"{system.title}: not measured: {system.reason}")

    def run(self, chosen):
        for kind in chosen:
            self.results.declare(kind.rows)
        for kind in chosen:
            try:
                groups.run_group(self, kind(self))
            except Exception as e:  # a mistake in a group must not cost the figures of the others
                traceback.print_exc()
                self.trouble.append(f"{kind.name}: {type(e).__name__}: {e}")
                continue
            for row in kind.rows:
                say(results.row_text(self.results.row_json(row, self.systems)))
            say(f"  ({self.results.seconds[kind.name]:.0f} s)")

    def stop(self):
        for system in reversed(list(self.systems.values())):
            try:
                system.stop()
            except (work.Failed, OSError) as e:
                self.trouble.append(f"{system.name}: stopping: {e}")
        return self.work.close()

    def data(self, seconds):
        return {
            "format": 1, "mode": self.config.mode, "seconds": round(seconds), "repetitions": self.config.reps,
            "config": vars(self.config), "machine": machine.describe(self.work.dir, os.path.join(self.build, "vclonefs")),
            "golden": self.content, "trouble": self.trouble,
            "systems": {n: {"title": s.title, "settings": s.settings, "reason": s.reason} for n, s in self.systems.items()},
            **self.results.to_json(self.systems),
        }


def choose(only):
    """Groups with the rows named, by row or group; unknown names are an error."""
    if not only:
        return GROUPS
    names = set(only.split(","))
    known = {g.name for g in GROUPS} | {r.id for g in GROUPS for r in g.rows}
    if names - known:
        raise ValueError(f"unknown row: {', '.join(sorted(names - known))}; see --list")
    return [g for g in GROUPS if g.name in names or names & {r.id for r in g.rows}]


def parse(argv):
    p = argparse.ArgumentParser(description="Measure vclonefs beside other ways to clone disk images.")
    p.add_argument("--mode", choices=sorted(config.MODES), default="full", help="quick ends within 5 minutes, full within 40")
    p.add_argument("--only", metavar="ROW,...", help="only these rows (or groups); see --list")
    p.add_argument("--systems", metavar="NAME,...", help="only these: " + ", ".join(s.name for s in SYSTEMS))
    p.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"), help="where to work: on the disk that is of interest")
    p.add_argument("--out", default="bench-results", help="where results go (%(default)s)")
    p.add_argument("--build", default=os.environ.get("BUILD_DIR", "."), help="where the programs are (%(default)s)")
    p.add_argument("--reps", type=int, help="repetitions instead of the mode's")
    p.add_argument("--list", action="store_true", help="list rows and systems")
    return p.parse_args(argv)


def list_all():
    for group in GROUPS:
        say(f"{group.name}:")
        for row in group.rows:
            say(f"  {row.id:<16} {row.title}" + "".join(f"; goal {g.text}" for g in row.goals))
    say("systems:")
    for kind in SYSTEMS:
        say(f"  {kind.name:<16} {kind.title}")


def write_results(options, data, interrupted):
    os.makedirs(options.out, exist_ok=True)
    base = os.path.join(options.out, data["mode"] + ("-part" if options.only or options.systems or interrupted else ""))
    results.save(base + ".json", data)
    return [base + ".json"] + plot.write_all(base, data)


def main(argv):
    options = parse(argv)
    if options.list:
        list_all()
        return 0
    names = options.systems.split(",") if options.systems else [s.name for s in SYSTEMS]
    try:
        chosen = choose(options.only)
        if set(names) - {s.name for s in SYSTEMS}:
            raise ValueError("unknown system; see --list")
    except ValueError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    start = time.monotonic()
    try:
        bench = Bench(options)
    except work.NotMeasured as e:
        print(f"bench: skipped: {e}", file=sys.stderr)
        return 77
    interrupted = False
    data = None
    try:
        bench.start_systems(names)
        say(f"set up in {time.monotonic() - start:.0f} s; golden image: {bench.content}")
        bench.run(chosen)
    except KeyboardInterrupt:
        interrupted = True
        bench.trouble.append("interrupted")
        say("interrupted; cleaning up ...")
    finally:
        bench.work.ignore_interrupts()
        if bench.golden:
            data = bench.data(time.monotonic() - start)
        cleaned = bench.stop()
    files = write_results(options, data, interrupted) if data and data["rows"] else []
    seconds = time.monotonic() - start
    say(f"took {seconds / 60:.1f} minutes ({bench.config.mode} mode promises {bench.config.limit_seconds / 60:.0f})")
    for text in bench.trouble:
        say(f"trouble: {text}")
    for name in files:
        say(f"wrote {name}")
    if interrupted:
        return 130
    return 1 if bench.trouble or not cleaned else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
