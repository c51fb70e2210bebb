# SPDX-License-Identifier: BSD-2-Clause
"""The golden image: an ext4 file system full of this machine's own files, so that it compresses as an installed system does."""
import os
import shutil
import stat

from work import Failed

PLACES = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/share", "/usr/include")
FULL = 0.93  # of the image, once the file system's own structures are taken off


def directories():
    for place in PLACES:
        for top, names, files in os.walk(place):
            names.sort()
            yield top, sorted(files)


def copy_files(stage, nbytes):
    """Copy files of /usr, whole directories at a time, until there is enough."""
    total = 0
    for top, files in directories():
        for name in files:
            path = os.path.join(top, name)
            try:
                info = os.lstat(path)
                if not stat.S_ISREG(info.st_mode) or info.st_size > nbytes / 8 or info.st_size == 0:
                    continue
                size = (info.st_size + 4095) // 4096 * 4096 + 256
                if total + size > nbytes:
                    if total > 0.99 * nbytes:
                        return total
                    continue
                target = stage + top
                os.makedirs(target, exist_ok=True)
                shutil.copyfile(path, os.path.join(target, name))
            except OSError:
                continue  # gone meanwhile, or not ours to read
            total += size
    return total


def nonzero_bytes(path):
    block = bytes(1 << 16)
    total = 0
    with open(path, "rb") as f:
        while data := f.read(1 << 16):
            if data != block[:len(data)]:
                total += len(data)
    return total


def make_golden(work, size, ideal):
    """Make the file, written in full (no holes on the disk). `ideal` runs bench_pool ideal. Returns (path, description)."""
    stage, path = work.path("stage"), work.path("golden.raw")
    os.mkdir(stage)
    copied = copy_files(stage, int(size * FULL) - (24 << 20 if size > 128 << 20 else 8 << 20))
    if copied < size / 3:
        raise Failed(f"/usr has only {copied >> 20} MiB of files to make a golden image of")
    nfiles = sum(len(files) for _, _, files in os.walk(stage))
    ninodes = sum(len(files) + 1 for _, _, files in os.walk(stage)) + 1000
    with open(path + ".sparse", "wb") as f:
        f.truncate(size)
    work.run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-I", "256", "-N", ninodes, "-d", stage, path + ".sparse")
    shutil.rmtree(stage)
    work.run("cp", "--sparse=never", "--reflink=never", path + ".sparse", path)
    os.unlink(path + ".sparse")
    work.run("sync", path)
    figures = ideal(4, path)
    return path, {"bytes": size, "files": nfiles, "nonzero_bytes": nonzero_bytes(path),
                  "lz4_16k_bytes": figures["stored"]}
