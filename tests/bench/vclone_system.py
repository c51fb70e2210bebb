# SPDX-License-Identifier: BSD-2-Clause
"""vclonefs as one of the systems: a pool on the file system below, mounted by a daemon in the foreground, our child."""
import json
import os
import signal
import time

from systems import System
from work import Failed, is_mounted, unmount


class VcloneFs(System):
    name = "vclonefs"
    title = "vclonefs"
    timer = "ioctl"
    mount_options = "cache=256M,node_cache=64M"
    parts = ("chunk", "meta", "journal", "backup")

    def __init__(self, bench, name=None, init=(), options=None):
        self.name = name or self.name
        super().__init__(bench)
        self.pool = os.path.join(bench.work.path(self.name + ".pool"))
        self.init = init or ("--log-size", str(bench.config.log_bytes))
        self.mount_options = options or self.mount_options
        self.daemon = None
        self.settings = (f"vclone init {' '.join(self.init)}, mount -o {self.mount_options}; clone: the ioctl; chunks are read "
                         "through the page cache of the file system below")

    def program(self, name):
        return os.path.join(self.bench.build, name)

    def start(self):
        self.create()
        self.mount()
        self.copy_in(self.bench.golden, "golden")
        self.destage()

    def create(self):
        os.mkdir(self.dir)
        self.bench.pools.append(self)
        self.work.run(self.program("vclone"), "init", *self.init, self.pool)

    def mount(self, options=None):
        """Returns the seconds from starting the daemon until its root answers."""
        start = time.perf_counter()
        self.daemon = self.work.start(self.program("vclonefs"), "-f", "-o", options or self.mount_options, self.pool, self.dir)
        while not is_mounted(self.dir):
            if self.daemon.poll() is not None:
                raise Failed(f"vclonefs ended with status {self.daemon.returncode}: {self.work.tail(300)}")
            if time.perf_counter() - start > 300:
                raise Failed("vclonefs was not ready within 300 s")
            time.sleep(0.001)
        os.listdir(self.dir)
        return time.perf_counter() - start

    def umount(self):
        """The daemon checkpoints all it has before it ends."""
        unmount(self.dir)
        self.work.wait(self.daemon, 300)
        if self.daemon.returncode != 0:
            raise Failed(f"vclonefs ended with status {self.daemon.returncode}: {self.work.tail(300)}")
        self.daemon = None

    def remount(self, options=None):
        self.umount()
        return self.mount(options)

    def crash(self):
        self.work.stop(self.daemon, signal.SIGKILL)
        unmount(self.dir, patience=0)
        self.daemon = None

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            self.umount()
        else:
            unmount(self.dir, patience=0)

    def remove(self):
        """Of a pool that a row has for itself."""
        self.bench.pools.remove(self)
        try:
            self.stop()
        finally:
            self.work.run("rm", "-rf", "--one-file-system", self.pool)

    def vclone(self, *args):
        return self.work.run(self.program("vclone"), *args)

    def destage(self):
        self.vclone("destage", self.dir)

    def clean(self):
        """What was deleted is given back."""
        self.destage()
        self.vclone("clean", self.dir)

    settle = clean

    def df(self):
        return json.loads(self.vclone("df", "--json", self.dir))

    def clone(self, src, dst, nbytes=None):
        self.vclone("clone", self.image(src), self.image(dst))

    def cold(self):
        self.remount()
        self.drop_caches()

    def pids(self):
        return [self.daemon.pid] if self.daemon else []

    def part_bytes(self, *parts):
        """Of the pool on the disk, by what is allocated."""
        total = 0
        for part in parts:
            for top, _, files in os.walk(os.path.join(self.pool, part)):
                total += sum(os.stat(os.path.join(top, f)).st_blocks * 512 for f in files)
        return total

    def used(self):
        """Everything but the log, which has its size from the beginning."""
        self.clean()
        return self.part_bytes(*self.parts)
