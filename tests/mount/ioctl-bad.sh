#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Malformed ioctls, as anybody can send them: each is refused with the errno of vclonefs.h and changes nothing.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

python3 - <<'END' || fail "ioctl"
from vctest import *

write("g", b"golden" * 1000)
os.mkdir(path("d"))
before = sorted(os.listdir(MNT))
unterminated = b"x" * 4096

# Well-formed ones of each kind first: the table below has to fail for its own reasons.
ioctl(".", CLONE, clone_arg("g", "ok1"))
ioctl("d", CLONE_MANY, clone_many_arg("../g", "../ok-%d", 5, 2))
ioctl("ok1", CLONE_RANGE, range_arg(os.stat(path("g")).st_ino), os.O_RDWR)
info = struct.unpack("<II12Q", ioctl("ok1", INFO, info_arg()))
same((info[0], info[2], info[4]), (104, os.stat(path("ok1")).st_ino, 6000), "info")
df = struct.unpack("<II16s15Q8Q32s", ioctl("d", DF, df_arg()))
same(df[0], 240, "df: size")
check(df[3] >= df[4] > 0 and df[-1].rstrip(b"\0").decode()[0].isdigit(), f"df: {df}")
for task in 0, 1:
    started = struct.unpack("<II3Q2i3Q4Q", ioctl(".", TASK_START, task_arg(task)))
    check(started[2] > 0, f"no number of a started task: {started}")
    status = struct.unpack("<II3Q2i3Q4Q", ioctl("g", TASK_STATUS, task_arg(task)))
    same(status[2], started[2], "number of the last task")
for name in "ok1", "ok-5", "ok-6":
    os.unlink(path(name))

EINVAL, ENOTTY, EISDIR, EBADF = errno.EINVAL, errno.ENOTTY, errno.EISDIR, errno.EBADF
ino = os.stat(path("g")).st_ino


def resized(number, change):
    """The same request with another size in its number, and so much data."""
    return number + (change << 16)


table = [
    (EINVAL, ".", CLONE, clone_arg("g", "x", size=0)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", size=8223)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", size=8225)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", size=0xffffffff)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", flags=1)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", flags=1 << 31)),
    (EINVAL, ".", CLONE, clone_arg("g", "x", reserved=(1, 0, 0))),
    (EINVAL, ".", CLONE, clone_arg("g", "x", reserved=(0, 0, 1 << 63))),
    (EINVAL, ".", CLONE, clone_arg(unterminated, "x")),
    (EINVAL, ".", CLONE, clone_arg("g", unterminated)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 0)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 10001)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 0xffffffff)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 2, size=1)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 2, flags=4)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "x%d", 0, 2, reserved=(0, 7))),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", unterminated, 0, 2)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "%n%d", 0, 2)),
    (EINVAL, ".", CLONE_MANY, clone_many_arg("g", "%s", 0, 2)),
    (EINVAL, "g", INFO, info_arg(size=103)),
    (EINVAL, "g", INFO, info_arg(reserved=(0, 0, 0, 1))),
    (EISDIR, ".", INFO, info_arg()),
    (EINVAL, ".clone", INFO, info_arg()),
    (EINVAL, ".", DF, df_arg(size=241)),
    (EINVAL, ".", DF, df_arg(reserved=(0,) * 7 + (1,))),
    (EINVAL, ".", TASK_START, task_arg(2)),
    (EINVAL, ".", TASK_START, task_arg(0xffffffff)),
    (EINVAL, ".", TASK_START, task_arg(0, size=95)),
    (EINVAL, ".", TASK_STATUS, task_arg(1, reserved=(1, 0, 0, 0))),
    (ENOTTY, "g", 0x5401, bytes(64)),
    (ENOTTY, "g", CLONE + 7, bytes(8224)),
    (ENOTTY, "d", 0xC0045600 | 0x99, bytes(4)),
]
for number in CLONE, CLONE_MANY, CLONE_RANGE, INFO, DF, TASK_START, TASK_STATUS:
    size = number >> 16 & 0x3fff
    for change in -8, -4, 8:
        table.append((ENOTTY, "g", resized(number, change), struct.pack("<I", size + change) + bytes(size + change - 4)))
    table.append((ENOTTY, "g", number ^ 0x80000000, struct.pack("<I", size) + bytes(size - 4)))
    table.append((ENOTTY, "g", number & 0xffff, struct.pack("<I", size) + bytes(size - 4)))
writable = [
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, size=55)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, flags=1)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, reserved=(0, 1))),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, src_offset=1 << 63)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, src_offset=(1 << 64) - 1)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, length=(1 << 64) - 1)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino, dst_offset=(1 << 64) - 1)),
    (EINVAL, "g", CLONE_RANGE, range_arg(ino | 1 << 63)),
    (EINVAL, ".clone", CLONE_RANGE, range_arg(ino)),
    (EISDIR, "g", CLONE_RANGE, range_arg(1)),
]
for number, name, request, data in table:
    raises(number, ioctl, name, request, data)
for number, name, request, data in writable:
    raises(number, ioctl, name, request, data, os.O_RDWR)
for bad in 0, 1 << 40, (1 << 63) - 1:
    try:
        ioctl("g", CLONE_RANGE, range_arg(bad), os.O_RDWR)
    except OSError as e:
        check(e.errno in (errno.ENOENT, errno.ESTALE), f"inode {bad}: {e}")
    else:
        raise AssertionError(f"inode {bad} was taken")

rng = seeded()
numbers = CLONE, CLONE_MANY, CLONE_RANGE, INFO, DF, TASK_STATUS
for i in range(3000):
    number = rng.choice(numbers)
    size = number >> 16 & 0x3fff
    data = bytearray(rng.randbytes(size) if rng.random() < 0.5 else bytes(size))
    if rng.random() < 0.9:
        data[:4] = size.to_bytes(4, "little")
    for _ in range(rng.randrange(4)):
        data[rng.randrange(4, size)] = rng.randrange(256)
    try:
        ioctl(rng.choice(("g", ".", "d", ".clone")), number, data, os.O_RDONLY)
    except OSError:
        pass
same(sorted(os.listdir(MNT)), before, "names after the malformed requests")
same(read("g"), b"golden" * 1000, "the image after the malformed requests")
END
unmount_pool
