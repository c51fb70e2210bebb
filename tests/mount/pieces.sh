#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Kernels that send a large copy in pieces: the pieces are of one point in time all the same. The option `pieces` makes
# this kernel behave like them.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool pieces
export MNT

python3 - <<'END' || fail "pieces"
from vctest import *

PIECE = 0xfffff000
SIZE = 3 * PIECE - 5000
MARKS = 0, PIECE - 8, PIECE, 2 * PIECE - 8, 2 * PIECE, SIZE - 8


def stamp(fd, n):
    for at in MARKS:
        os.pwrite(fd, n.to_bytes(8, "little"), at)


def stamps(name):
    with open(path(name), "rb") as f:
        return [int.from_bytes(os.pread(f.fileno(), 8, at), "little") for at in MARKS]


def piece(src, dst, offset, to=None, expect=None):
    n = os.copy_file_range(src, dst, PIECE, offset, offset if to is None else to)
    same(n, min(PIECE, SIZE - offset) if expect is None else expect, "bytes of a piece")


source = os.open(path("source"), os.O_RDWR | os.O_CREAT)
os.ftruncate(source, SIZE)
stamp(source, 1)

# One call: the kernel makes pieces of it, or the caller continues.
copy = os.open(path("copy"), os.O_RDWR | os.O_CREAT)
at = 0
while at < SIZE:
    at += os.copy_file_range(source, copy, SIZE - at, at, at)
    stamp(source, 1 + at // 1000)
same(os.fstat(copy).st_size, SIZE, "size")
same(stamps("copy"), [1] * 6, "written between the pieces")
os.close(copy)

# A piece that does not continue sees the source as it is now.
stamp(source, 10)
copy = os.open(path("turn"), os.O_RDWR | os.O_CREAT)
piece(source, copy, 0)
stamp(source, 11)
piece(source, copy, 2 * PIECE)
piece(source, copy, PIECE)
same(stamps("turn"), [10, 10, 11, 11, 11, 11], "out of order")
os.close(copy)

# A destination that is not empty, and a source opened again, do not continue either.
copy = os.open(path("turn"), os.O_RDWR)
stamp(source, 12)
piece(source, copy, 0)
stamp(source, 13)
piece(source, copy, PIECE)
same(stamps("turn")[:4], [12, 12, 13, 13], "a destination that was not empty")
os.close(copy)
copy = os.open(path("again"), os.O_RDWR | os.O_CREAT)
again = os.open(path("source"), os.O_RDWR)
stamp(source, 14)
piece(source, copy, 0)
stamp(source, 15)
piece(again, copy, PIECE)
same(stamps("again")[:4], [14, 14, 15, 15], "another descriptor")
os.close(again)
os.close(copy)

# A pin ends after five idle seconds, or with its source.
copy = os.open(path("idle"), os.O_RDWR | os.O_CREAT)
stamp(source, 20)
piece(source, copy, 0)
stamp(source, 21)
import time
time.sleep(6)
piece(source, copy, PIECE)
same(stamps("idle")[:4], [20, 20, 21, 21], "after a long pause")
os.close(copy)
copy = os.open(path("closed"), os.O_RDWR | os.O_CREAT)
piece(source, copy, 0)
os.close(source)
os.close(copy)
END
unmount_pool
