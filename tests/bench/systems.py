# SPDX-License-Identifier: BSD-2-Clause
"""What is compared. Every system keeps its images below the one work directory, on the same disk, and has a golden image
"golden" of the same content once it is started.

A system is asked for images by name; file() is where a client finds one, serve() makes sure that it can be opened there. Clones made by
clone() are preparation and not timed; the rows that time them say how.
"""
import os
import time

import machine
from work import Failed, NotMeasured, is_mounted, loops_below, quiet, unmount


class System:
    name = ""
    title = ""
    settings = ""
    timer = None       # method of bench_clone
    has_clones = True  # a clone shares; otherwise it is a copy

    def __init__(self, bench):
        self.bench = bench
        self.work = bench.work
        self.dir = bench.work.path(self.name)

    def start(self):
        raise NotImplementedError

    def stop(self):
        pass

    def image(self, name):
        return os.path.join(self.dir, name)

    def file(self, name):
        return self.image(name)

    def serve(self, name):
        return self.file(name)

    def clone(self, src, dst, nbytes=None):
        """Made and durable. nbytes: no more than the beginning will be used."""
        raise NotImplementedError

    def delete(self, name):
        os.unlink(self.image(name))

    def names(self):
        """All images there are."""
        return {e.name for e in os.scandir(self.dir) if e.is_file()}

    def copy_in(self, source, name):
        """As people do it: cp, then sync of the file."""
        self.work.run("cp", "--reflink=never", "--sparse=never", source, self.image(name))
        self.work.run("sync", self.image(name))

    def settle(self):
        """Nothing goes on in the background any more."""
        self.work.run("sync", "-f", self.dir)

    def cold(self):
        """Nothing is cached any more; images have to be served again."""
        self.drop_caches()

    def drop_caches(self):
        """Of the kernel, but not the programs that measure: reading them in would count as the system's own I/O."""
        if self.bench.config.drop_caches:
            machine.drop_caches()
            self.bench.client.warm()

    def pids(self):
        return []

    def used(self):
        """Bytes of the disk that the images take."""
        raise NotImplementedError


class Raw(System):
    name = "raw"
    title = "raw files"
    settings = "files on the file system below, written in full before; a clone is a copy"
    has_clones = False

    def start(self):
        os.mkdir(self.dir)
        os.link(self.bench.golden, self.image("golden"))

    def clone(self, src, dst, nbytes=None):
        size = nbytes or os.path.getsize(self.image(src))
        self.work.run("dd", f"if={self.image(src)}", f"of={self.image(dst)}", "bs=1M", f"count={-(-size >> 20)}",
                      "conv=fsync", "status=none")

    def settle(self):
        """Clients write past the page cache, and copies are synced: a sync of the whole disk would wait for others."""

    def used(self):
        return sum(os.stat(e.path).st_blocks * 512 for e in os.scandir(self.dir))


class PassThrough(Raw):
    """What FUSE alone costs."""
    name = "fuse"
    title = "raw through FUSE"
    settings = ("the same files through a FUSE server that only hands requests on (tests/bench/bench_fuse.c; 16 threads): what "
                "a FUSE file system can reach that does the very same I/O")

    def __init__(self, bench):
        super().__init__(bench)
        self.point = bench.work.path("fuse-mount")
        self.daemon = None

    def start(self):
        super().start()
        os.mkdir(self.point)
        self.daemon = self.work.start(os.path.join(self.bench.build, "tests/bench/bench_fuse"), self.dir, self.point)
        self.work.wait_mounted(self.daemon, self.point)

    def stop(self):
        if is_mounted(self.point):
            unmount(self.point)
        if self.daemon:
            self.work.stop(self.daemon)

    def file(self, name):
        return os.path.join(self.point, name)

    def pids(self):
        return [self.daemon.pid]


class LoopFs(System):
    """A file system on a loop device with direct I/O over a file that was written in full."""
    mkfs = ()
    options = "noatime"

    def start(self):
        os.mkdir(self.dir)
        store = self.work.path(self.name + ".loop")
        size = getattr(self.bench.config, self.name + "_bytes")
        self.work.run("fallocate", "-l", size, store)
        self.work.run("dd", "if=/dev/zero", f"of={store}", "bs=4M", f"count={size >> 22}", "conv=notrunc,fsync",
                      "oflag=direct", "status=none")
        try:
            self.loop = self.work.run("losetup", "--find", "--show", "--direct-io=on", store).strip()
        except Failed as e:
            raise NotMeasured(str(e)) from None
        try:
            self.work.run(*self.mkfs, self.loop)
            self.work.run("mount", "-o", self.options, self.loop, self.dir)
        except (Failed, OSError) as e:
            raise NotMeasured(str(e)) from None
        self.empty = self.used()
        self.copy_in(self.bench.golden, "golden")

    def stop(self):
        if is_mounted(self.dir):
            unmount(self.dir)
        if getattr(self, "loop", None) in loops_below(self.work.dir):
            quiet(["losetup", "-d", self.loop])

    def clone(self, src, dst, nbytes=None):
        self.work.run("cp", "--reflink=always", self.image(src), self.image(dst))
        self.work.run("sync", self.image(dst))

    def used(self):
        self.settle()
        space = os.statvfs(self.dir)
        return (space.f_blocks - space.f_bfree) * space.f_frsize


class Xfs(LoopFs):
    name = "xfs"
    title = "XFS reflink"
    settings = "mkfs.xfs -K -m reflink=1, mount -o noatime, loop with direct I/O over a written file; clone: FICLONE, fsync"
    mkfs = ("mkfs.xfs", "-q", "-K", "-f", "-m", "reflink=1")
    timer = "ficlone"


class Btrfs(LoopFs):
    name = "btrfs"
    title = "btrfs reflink"
    settings = "mkfs.btrfs -K, mount -o noatime,nodiscard, loop with direct I/O over a written file; clone: FICLONE, fsync"
    mkfs = ("mkfs.btrfs", "-q", "-K", "-f")
    options = "noatime,nodiscard"
    timer = "ficlone"


class RawXfs(Raw):
    """What the loop device and XFS cost without any sharing: plain copies beside the clones."""
    name = "raw-xfs"
    title = "raw on the XFS loop"
    settings = "full copies on the XFS of the reflink clones: what its loop device costs"

    def start(self):
        host = self.bench.systems.get("xfs")
        if not host or host.reason:
            raise NotMeasured("XFS is not there")
        self.host = host
        self.dir = os.path.join(host.dir, "raw")
        os.mkdir(self.dir)
        os.link(host.image("golden"), self.image("golden"))


class Qcow2(System):
    name = "qcow2"
    title = "qcow2 over FUSE"
    settings = ("qcow2 overlay with 64 KiB clusters on a raw backing file, served as a raw file by qemu-storage-daemon "
                "--export type=fuse; cache.direct=on, aio=native, automatic L2 cache, one daemon an image")

    def start(self):
        os.mkdir(self.dir)
        self.daemons = {}
        if not any(os.access(os.path.join(d, "qemu-storage-daemon"), os.X_OK) for d in os.environ["PATH"].split(":")):
            raise NotMeasured("qemu-storage-daemon is not installed (package qemu-system-common)")
        os.link(self.bench.golden, self.image("golden"))
        self.clone("golden", "probe")
        self.serve("probe")
        self.delete("probe")

    def stop(self):
        for name in list(getattr(self, "daemons", {})):
            self.release(name)

    def format_of(self, name):
        with open(self.image(name), "rb") as f:
            return "qcow2" if f.read(4) == b"QFI\xfb" else "raw"

    def file(self, name):
        return self.image(name) + ".export"

    def create_command(self, src, dst):
        return ("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.image(src), "-F", self.format_of(src), self.image(dst))

    def clone(self, src, dst, nbytes=None):
        self.release(src)
        self.work.run(*self.create_command(src, dst))
        self.work.run("sync", self.image(dst))

    def serve(self, name):
        point = self.file(name)
        if name in self.daemons:
            return point
        with open(point, "w"):
            pass
        form = self.format_of(name)
        self.daemons[name] = daemon = self.work.start(
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=file,filename={self.image(name)},cache.direct=on,aio=native",
            "--blockdev", f"driver={form},node-name=image,file=file,cache.direct=on,discard=unmap",
            "--export", f"type=fuse,id=export,node-name=image,mountpoint={point},writable=on")
        self.work.wait_mounted(daemon, point)
        return point

    def release(self, name):
        daemon = self.daemons.pop(name, None)
        if daemon:
            self.work.stop(daemon)
            if is_mounted(self.file(name)):
                unmount(self.file(name))
            os.unlink(self.file(name))

    def delete(self, name):
        self.release(name)
        os.unlink(self.image(name))

    def cold(self):
        for name in list(self.daemons):
            self.release(name)
        self.drop_caches()

    def settle(self):
        """As for raw files."""

    def names(self):
        return {n for n in super().names() if not n.endswith(".export")}

    def pids(self):
        return [d.pid for d in self.daemons.values()]

    def used(self):
        return sum(os.stat(e.path).st_blocks * 512 for e in os.scandir(self.dir) if not e.name.endswith(".export"))


def peers():
    return [Raw, PassThrough, Xfs, RawXfs, Btrfs, Qcow2]
