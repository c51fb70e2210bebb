#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""scale.py: what each operation costs as a pool grows: images in a tree of directories, the size of an image, depth of cloning, clones in
a batch, and mapped blocks (by a generator that writes maps and no data). vclonefs alone; see bench.py for comparisons.

usage: scale.py [--mode full|smoke] [--only images,size,depth,batch,blocks] [--dir DIR] [--out DIR]

Every figure becomes a point of a series; from the first to the last point a time of one operation may double (flat), and anything
else grow as n log n. Results, cleaning up and exit status are as those of bench.py.
"""
import argparse
import math
import os
import random
import statistics
import sys
import time

sys.dont_write_bytecode = True

import config
import machine
import plot
import results
import work
from client import Client
from vclone_system import VcloneFs

FULL = {"images": (100, 1000, 10000, 100000), "size": (1, 64, 1024, 16384), "depth": (10, 100, 1000, 10000),
        "batch": (1, 10, 100, 1000, 10000), "blocks": (1, 10, 100), "samples": 100, "lookups": 5000, "image_blocks": 1 << 20}
SMOKE = {"images": (10, 100), "size": (1, 16384), "depth": (5, 20), "batch": (1, 100), "blocks": (1, 2), "samples": 5,
         "lookups": 50, "image_blocks": 4096}
PER_DIRECTORY = 10000
FLAT = 2.0


def say(text):
    print(text, flush=True)


def timed(call, *args):
    start = time.perf_counter()
    call(*args)
    return (time.perf_counter() - start) * 1e6


class Scale:
    def __init__(self, options):
        small = options.mode == "smoke"
        self.config = config.Config(mode="scale", log_bytes=256 << 20, disk_bytes=(1 if small else 8) << 30, drop_caches=not small)
        self.sizes = SMOKE if small else FULL
        self.build = os.path.realpath(options.build)
        self.results = results.Results()
        self.trouble = []
        self.pools = []
        self.work = work.Work(options.dir, self.config.disk_bytes, say)
        self.client = Client(self)
        self.device = machine.Device(self.work.dir)
        self.random = random.Random(1)
        self.growth = []

    # ---- pools ----

    def pool(self, name, **options):
        pool = VcloneFs(self, name, **options)
        pool.create()
        pool.mount()
        with open(pool.image("golden"), "wb") as f:
            for part in sorted(os.listdir("/usr/bin")):
                path = os.path.join("/usr/bin", part)
                if os.path.isfile(path) and f.tell() < 64 << 20:
                    with open(path, "rb") as source:
                        f.write(source.read(1 << 20))
            f.flush()
            os.fsync(f.fileno())
        pool.destage()
        return pool

    def clone_us(self, pool, source, directory=None):
        times = self.client.clones("ioctl", directory or pool.dir, source, "-n", self.sizes["samples"], "-f", 9000000 - 100000)[0]
        return statistics.median(times)

    def mounted_cold(self, pool):
        """Unmount, drop the kernel's caches, mount: seconds."""
        pool.umount()
        pool.drop_caches()
        return pool.mount()

    def recovered(self, pool):
        """Kill the daemon with some changes in its log, drop caches, mount: seconds."""
        self.client.clones("ioctl", pool.dir, "golden", "-n", 200, "-f", 8000000)
        pool.crash()
        pool.drop_caches()
        return pool.mount()

    # ---- points ----

    def point(self, dimension, axis, n, kind, **values):
        """kind: flat or n log n."""
        for name, (value, unit, title) in values.items():
            self.results.add_series(f"{dimension}-{name}", title, axis, unit, {"vclonefs": [(n, value)]})
            for g in self.growth:
                if g["id"] == f"{dimension}-{name}":
                    g["points"].append((n, value))
                    break
            else:
                self.growth.append({"id": f"{dimension}-{name}", "what": title, "kind": kind, "points": [(n, value)]})
            say(f"  {axis} {n}: {title}: {value:.4g} {unit}")

    def verdicts(self):
        out = []
        for g in self.growth:
            (n0, y0), (n1, y1) = g["points"][0], g["points"][-1]
            if n0 == n1 or y0 <= 0:
                continue
            bound = FLAT if g["kind"] == "flat" else n1 * math.log2(n1 + 1) / (n0 * math.log2(n0 + 1))
            out.append({"id": g["id"], "what": g["what"], "from": n0, "to": n1, "ratio": y1 / y0, "bound": bound,
                        "met": y1 / y0 <= bound})
        return out

    # ---- dimensions ----

    def images(self):
        pool = self.pool("images")
        made = 0
        for n in self.sizes["images"]:
            while made < n:
                directory = pool.image(f"d{made // PER_DIRECTORY}")
                os.makedirs(directory, exist_ok=True)
                count = min(n - made, PER_DIRECTORY - made % PER_DIRECTORY)
                self.client.clones("many", directory, "../golden", "-n", count, "-f", made)
                made += count
            pool.destage()
            mount = self.mounted_cold(pool)
            empty = machine.rss_bytes(pool.daemon.pid)
            names = [f"d{i // PER_DIRECTORY}/clone-{i:07d}" for i in self.random.sample(range(n), min(n, self.sizes["lookups"]))]
            lookup = statistics.median(timed(os.stat, pool.image(name)) for name in names)
            opened = statistics.median(timed(lambda p: os.close(os.open(p, os.O_RDONLY)), pool.image(name)) for name in names)
            listing = timed(lambda: [len(os.listdir(pool.image(d))) for d in os.listdir(pool.dir) if d.startswith("d")])
            self.point("images", "images", n, "flat",
                       clone=(self.clone_us(pool, "../golden", pool.image("d0")), "us", "one clone, by images in the pool"),
                       lookup=(lookup, "us", "first stat of an image, by images"),
                       open=(opened, "us", "open and close, by images"))
            self.point("images", "images", n, "n log n", readdir=(listing / 1000, "ms", "reading all directories, by images"),
                       mount=(mount * 1000, "ms", "mount, by images"),
                       recovery=(self.recovered(pool) * 1000, "ms", "mount after a crash, by images"),
                       memory=(empty / 2**20, "MiB", "daemon after mount, by images"),
                       memory_known=(self.touched(pool) / 2**20, "MiB", "daemon when all images were looked up, by images"),
                       map=(pool.df()["map_bytes"] / 2**20, "MiB", "LMDB file, by images"))
        pool.remove()

    def touched(self, pool):
        for directory in os.scandir(pool.dir):
            if directory.is_dir():
                for entry in os.scandir(directory.path):
                    entry.stat()
        return machine.rss_bytes(pool.daemon.pid)

    def size(self):
        pool = self.pool("size")
        for gib in self.sizes["size"]:
            name = f"size-{gib}"
            nblocks = 2000
            with open(pool.image(name), "wb") as f:
                f.truncate(gib << 30)
                for i in range(nblocks):
                    f.seek((gib << 30) // nblocks * i // 4096 * 4096)
                    f.write(b"x" * 4096)
                f.flush()
                os.fsync(f.fileno())
            pool.destage()
            fd = os.open(pool.image(name), os.O_RDONLY)
            reads = [timed(os.pread, fd, 4096, self.random.randrange(gib << 18) << 12) for _ in range(self.sizes["lookups"])]
            seeks = [timed(os.lseek, fd, self.random.randrange(gib << 18) << 12, os.SEEK_HOLE) for _ in range(self.sizes["lookups"])]
            os.close(fd)
            self.point("size", "image size, GiB", gib, "flat", clone=(self.clone_us(pool, name), "us", "one clone, by image size"),
                       read=(statistics.median(reads), "us", "read of 4 KiB at random, by image size"),
                       seek=(statistics.median(seeks), "us", "SEEK_HOLE at random, by image size"))
        pool.remove()

    def depth(self):
        pool = self.pool("depth")
        source, made = "golden", 0
        for depth in self.sizes["depth"]:
            self.client.clones("ioctl", pool.dir, source, "-n", depth - made, "-f", made, "-c", 0)
            made = depth
            source = f"clone-{made - 1:07d}"
            fd = os.open(pool.image(source), os.O_RDONLY)
            blocks = os.fstat(fd).st_size >> 12
            reads = [timed(os.pread, fd, 4096, self.random.randrange(blocks) << 12) for _ in range(self.sizes["lookups"])]
            os.close(fd)
            self.point("depth", "depth", depth, "flat", clone=(self.clone_us(pool, source), "us", "one clone, by depth"),
                       read=(statistics.median(reads), "us", "read of 4 KiB at random, by depth"))
        pool.remove()

    def batch(self):
        pool = self.pool("batch")
        for n in self.sizes["batch"]:
            times = []
            for i in range(3):
                directory = pool.image(f"d{n}-{i}")
                os.mkdir(directory)
                times.append(self.client.clones("many", directory, "../golden", "-n", n)[0][0])
            self.point("batch", "clones in one call", n, "n log n", total=(statistics.median(times) / 1000, "ms", "one call, by its clones"))
        pool.remove()

    def blocks(self):
        """A generated pool that grows; block maps are random, the worst case."""
        pool = self.pool("blocks")
        unit = self.sizes["image_blocks"]
        made = 0
        tool = os.path.join(self.build, "tests/bench/bench_pool")
        for n in self.sizes["blocks"]:
            pool.umount()
            self.work.run(tool, "grow", pool.pool, "golden", f"grown-{n}-", n - made, unit, "random", limit=1200)
            made = n
            pool.drop_caches()
            mount = pool.mount()
            empty = machine.rss_bytes(pool.daemon.pid)
            files = [e.path for e in os.scandir(pool.dir) if e.name.startswith("grown-")]
            reads = [self.read_random(self.random.choice(files), unit) for _ in range(self.sizes["lookups"])]
            some = os.path.basename(files[0])
            self.point("blocks", "mapped blocks", n * unit, "flat",
                       clone=(self.clone_us(pool, some), "us", "one clone, by mapped blocks"),
                       read=(statistics.median(reads), "us", "open, read 4 KiB at random, close, by mapped blocks"))
            pool.destage()
            clean = timed(pool.vclone, "clean", pool.dir) / 1e6
            self.point("blocks", "mapped blocks", n * unit, "n log n",
                       mount=(mount * 1000, "ms", "mount, by mapped blocks"),
                       recovery=(self.recovered(pool) * 1000, "ms", "mount after a crash, by mapped blocks"),
                       memory=(empty / 2**20, "MiB", "daemon after mount, by mapped blocks"),
                       map=(pool.df()["map_bytes"] / 2**20, "MiB", "LMDB file, by mapped blocks"),
                       clean=(clean, "s", "vclone clean, by mapped blocks"))
        pool.remove()

    def read_random(self, path, nblocks):
        offset = self.random.randrange(nblocks) << 12
        start = time.perf_counter()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(fd, 4096, offset)
        os.close(fd)
        if len(data) != 4096:
            raise work.Failed(f"{os.path.basename(path)}: a short read")
        return (time.perf_counter() - start) * 1e6

    def data(self, seconds):
        return {"format": 1, "mode": "scale", "seconds": round(seconds), "repetitions": 1, "trouble": self.trouble, "systems": {},
                "machine": machine.describe(self.work.dir, os.path.join(self.build, "vclonefs")), "growth": self.verdicts(),
                **self.results.to_json({})}


def run(scale, names):
    for name in names:
        say(f"{name}:")
        try:
            getattr(scale, name)()
        except (work.Failed, OSError) as e:
            scale.trouble.append(f"{name}: {e}".replace(scale.work.dir, "..."))
            say(f"  {scale.trouble[-1]}")


def write_results(options, data):
    os.makedirs(options.out, exist_ok=True)
    base = os.path.join(options.out, "scale" + ("-part" if options.only or options.mode == "smoke" else ""))
    results.save(base + ".json", data)
    return [base + ".json"] + plot.write_all(base, data)


def main(argv):
    dimensions = ["images", "size", "depth", "batch", "blocks"]
    p = argparse.ArgumentParser(description="What vclonefs costs as a pool grows.")
    p.add_argument("--mode", choices=("full", "smoke"), default="full")
    p.add_argument("--only", metavar="NAME,...", help="only these: " + ", ".join(dimensions))
    p.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"), help="where to work")
    p.add_argument("--out", default="bench-results", help="where results go (%(default)s)")
    p.add_argument("--build", default=os.environ.get("BUILD_DIR", "."), help="where the programs are (%(default)s)")
    options = p.parse_args(argv)
    names = options.only.split(",") if options.only else dimensions
    if set(names) - set(dimensions):
        p.error("unknown name in --only")
    start = time.monotonic()
    try:
        scale = Scale(options)
    except work.NotMeasured as e:
        print(f"scale: skipped: {e}", file=sys.stderr)
        return 77
    interrupted = False
    try:
        run(scale, names)
    except KeyboardInterrupt:
        interrupted = True
        scale.trouble.append("interrupted")
        say("interrupted; cleaning up ...")
    finally:
        scale.work.ignore_interrupts()
        data = scale.data(time.monotonic() - start)
        cleaned = scale.work.close()
    files = write_results(options, data) if data["series"] and not interrupted else []
    for g in data["growth"]:
        say(f"{g['what']}: {g['from']:,} to {g['to']:,}: {g['ratio']:.2f}x, at most {g['bound']:.2f}x: {'yes' if g['met'] else 'NO'}")
    say(f"took {(time.monotonic() - start) / 60:.1f} minutes")
    for text in scale.trouble:
        say(f"trouble: {text}")
    for name in files:
        say(f"wrote {name}")
    return 130 if interrupted else 1 if scale.trouble or not cleaned else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
