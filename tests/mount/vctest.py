# SPDX-License-Identifier: BSD-2-Clause
"""What the Python parts of the mount tests share: errno checks, and the ioctls of vclonefs.h written out by hand (so that a
change of their layout is noticed)."""
import errno
import fcntl
import os
import random
import struct
import sys

MNT = os.environ.get("MNT", "")
CLONE = 0x40000000 | (8224 << 16) | (ord("V") << 8) | 0x80
CLONE_MANY = 0x40000000 | (8224 << 16) | (ord("V") << 8) | 0x81
CLONE_RANGE = 0x40000000 | (56 << 16) | (ord("V") << 8) | 0x82
INFO = 0xC0000000 | (104 << 16) | (ord("V") << 8) | 0x83
DF = 0xC0000000 | (240 << 16) | (ord("V") << 8) | 0x84
TASK_START = 0xC0000000 | (96 << 16) | (ord("V") << 8) | 0x85
TASK_STATUS = 0xC0000000 | (96 << 16) | (ord("V") << 8) | 0x86
DIOINFO = 0x80000000 | (12 << 16) | (ord("X") << 8) | 30


def path(name):
    return os.path.join(MNT, name)


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:200] + " ... " + text[-50:]


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def same(got, want, text=""):
    check(got == want, f"{text}: {short(got)} instead of {short(want)}")


def raises(number, call, *args, **kwargs):
    """call(...) must fail with this errno."""
    what = f"{errno.errorcode[number]}: {call.__name__}{short(args)}"
    try:
        result = call(*args, **kwargs)
    except OSError as e:
        check(e.errno == number, f"{errno.errorcode.get(e.errno)} instead of {what}")
        return
    raise AssertionError(f"returned {short(result)} instead of {what}")


def seeded():
    """A random generator; its seed is printed, and taken from VC_TEST_SEED if that is set."""
    seed = int(os.environ.get("VC_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))
    print("seed", seed)
    return random.Random(seed)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data)


def read(name):
    with open(path(name), "rb") as f:
        return f.read()


def text_field(text, size=4096):
    data = os.fsencode(text) if isinstance(text, str) else text
    check(len(data) <= size, "test error: text too long")
    return data + bytes(size - len(data))


def clone_arg(src, dst, size=8224, flags=0, reserved=(0, 0, 0)):
    return struct.pack("<II3Q", size, flags, *reserved) + text_field(src) + text_field(dst)


def clone_many_arg(src, dst, first, count, size=8224, flags=0, reserved=(0, 0)):
    return struct.pack("<IIII2Q", size, flags, first, count, *reserved) + text_field(src) + text_field(dst)


def range_arg(ino, src_offset=0, length=0, dst_offset=0, size=56, flags=0, reserved=(0, 0)):
    return struct.pack("<II6Q", size, flags, ino, src_offset, length, dst_offset, *reserved)


def info_arg(size=104, reserved=(0, 0, 0, 0)):
    return struct.pack("<II8Q4Q", size, 0, *(0,) * 8, *reserved)


def df_arg(size=240, reserved=(0,) * 8):
    return struct.pack("<II16x15Q8Q", size, 0, *(0,) * 15, *reserved) + bytes(32)


def task_arg(task, size=96, reserved=(0, 0, 0, 0)):
    return struct.pack("<II3Q2i3Q4Q", size, task, 0, 0, 0, 0, 0, 0, 0, 0, *reserved)


def ioctl(name, number, data, flags=os.O_RDONLY):
    """On a fresh descriptor of `name`; returns the struct as the kernel left it."""
    fd = os.open(path(name), flags)
    try:
        buffer = bytearray(data)
        fcntl.ioctl(fd, number, buffer)
        return bytes(buffer)
    finally:
        os.close(fd)
