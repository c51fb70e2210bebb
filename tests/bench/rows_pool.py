# SPDX-License-Identifier: BSD-2-Clause
"""Space, maps, memory and recovery. Rows of vclonefs alone use a pool of their own, so that what others left does not count."""
import os

import machine
from groups import CLONING, Group
from results import Goal, Row
from vclone_system import VcloneFs


class Space(Group):
    """Deterministic, so once is enough."""
    name = "space"
    systems = CLONING
    absent = {"raw": "its clones are full copies: as many times the image", "raw-xfs": "see raw"}
    rows = (Row("space", "clones with 5 % private changes each, against the ideal", "x", "lower", [Goal("<= 1.15x", 1.15)],
                "disk space of golden image, clones and their changes, without the log; ideal: the golden image in LZ4 units of 16 KiB "
                "and each changed block in LZ4, nothing else; measured once"),)

    own = None  # the pool of vclonefs for this row

    def prepare(self, system):
        if system.name == "vclonefs":
            self.own = VcloneFs(self.bench, "space")
            self.own.start()

    def measure(self, system, rep):
        if rep > 0:
            return
        store = self.own if system.name == "vclonefs" else system
        changes = int(self.config.golden_bytes * 0.05) >> 12
        names = [f"space-{i}" for i in range(self.config.space_clones)]
        for i, image in enumerate(names):
            store.clone("golden", image)
            self.client.fio(store.serve(image), "randwrite", depth=32, numbers=changes, seed=1000 + i)
        # All clones were changed alike: two say how well changes compress.
        compressed = [self.bench.ideal(4, store.serve(image), self.bench.golden)["stored"] for image in names[:2]]
        ideal = self.bench.ideal(4, self.bench.golden)["stored"] + len(names) * sum(compressed) / len(compressed)
        beside = {"clones": len(names), "ideal_bytes": int(ideal)}
        if store is self.own:
            beside["mounted_bytes"] = store.used()
            store.umount()
            beside.update({part + "_bytes": store.part_bytes(part) for part in store.parts})
            used = store.part_bytes(*store.parts)
        else:
            used = store.used() - getattr(store, "empty", 0)
        self.add("space", system, used / ideal, used_bytes=used, **beside)
        for image in names if store is system else ():
            system.delete(image)

    def finish(self, system):
        if system.name == "vclonefs":
            self.own.remove()


class MapSize(Group):
    name = "map-size"
    systems = ("vclonefs",)
    rows = (
        Row("map-sequential", "map size, image written in sequence, by its data", "%", "lower", [Goal("<= 0.1 %", 0.1)],
            "pages of LMDB in use; data: mapped blocks; measured once"),
        Row("map-random", "map size, image written at random in 4 KiB, by its data", "%", "lower", [Goal("<= 0.5 %", 0.5)],
            "each block once, in random order; measured once"),
    )

    def measure(self, system, rep):
        if rep > 0:
            return
        size = self.config.map_bytes
        for row, rw, block, depth in (("map-sequential", "write", 1 << 20, 4), ("map-random", "randwrite", 4096, 32)):
            pool = VcloneFs(self.bench, row)
            pool.create()
            pool.mount()
            with open(pool.image("image"), "wb") as f:
                f.truncate(size)
            self.client.fio(pool.file("image"), rw, block=block, depth=depth)
            pool.clean()
            pool.umount()
            stat = self.bench.tool("stat", pool.pool)
            self.add(row, system, 100 * (stat["file"] - stat["free"]) / size, data_bytes=size, file_bytes=stat["file"],
                     free_bytes=stat["free"], nodes=stat["nodes"])
            pool.remove()


class Memory(Group):
    name = "memory"
    systems = ("vclonefs",)
    caches = 32 << 20
    rows = (Row("memory", "memory of the daemon with 10,000 images", "B", "lower",
                [Goal("<= 100 MB + 32 MiB of caches", 100e6 + caches)],
                "resident; cache= and node_cache= together 32 MiB; every image looked up by the kernel"),)

    def measure(self, system, rep):
        pool = VcloneFs(self.bench, f"memory-{rep}", options="cache=16M,node_cache=16M")
        pool.create()
        pool.mount()
        with open(pool.image("golden"), "wb") as f:
            f.write(os.urandom(16 << 20))
        empty = machine.rss_bytes(pool.daemon.pid)
        self.client.clones("many", pool.dir, "golden", "-n", self.config.memory_images)
        pool.destage()
        for entry in os.scandir(pool.dir):
            entry.stat()
        rss = machine.rss_bytes(pool.daemon.pid)
        self.add("memory", system, rss, rss_empty=empty, images=self.config.memory_images)
        pool.remove()


class Recovery(Group):
    """The log is three times as large as what is put into it: at a third of it a checkpoint would begin."""
    name = "recovery"
    systems = ("vclonefs",)
    rows = (Row("recovery", "mount after a crash with 1 GiB of log to replay", "s", "lower", [Goal("<= 2 s", 2)],
                "SIGKILL of the daemon, caches dropped, then from starting it until the mount answers; the log holds 4 KiB random "
                "writes, none of them destaged"),)
    record_bytes = 4200  # about, of a write of one block

    def prepare(self, system):
        size = self.config.recovery_log
        self.pool = VcloneFs(self.bench, "recovery", init=("--log-size", str(size * 10 // 3 >> 24 << 24)),
                             options="cache=256M,node_cache=64M,destage_ms=never")
        self.pool.create()
        self.pool.mount()
        with open(self.pool.image("image"), "wb") as f:
            f.truncate(2 * size)
        self.client.fio(self.pool.file("image"), "randwrite", depth=32, numbers=size // self.record_bytes)
        self.pool.crash()

    def measure(self, system, rep):
        self.pool.drop_caches()
        seconds = self.pool.mount()
        used = self.pool.df()["log_used_bytes"]
        # Killed at once, so that the next mount finds as much.
        self.pool.crash()
        self.add("recovery", system, seconds, log_used=used)

    def finish(self, system):
        self.pool.remove()


GROUPS = [Space, MapSize, Memory, Recovery]
