#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The file .clone: what it looks like, the lines it takes, what it refuses.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

python3 - <<'END' || fail "magic"
import stat
import subprocess

from vctest import *


def put(data, name=".clone"):
    """One write(2); returns the bytes taken."""
    fd = os.open(path(name), os.O_WRONLY)
    try:
        return os.write(fd, data if isinstance(data, bytes) else os.fsencode(data))
    finally:
        os.close(fd)


def taken(data, name=".clone"):
    same(put(data, name), len(data), f"bytes taken of {data!r}")


def names(directory="."):
    return sorted(os.listdir(path(directory)))


def fresh():
    subprocess.run(["find", MNT, "-mindepth", "1", "-delete"], check=True)
    write("g", b"golden" * 1000)
    os.mkdir(path("d"))


def test_looks():
    st = os.stat(path(".clone"))
    same(st.st_mode, stat.S_IFREG | 0o666, "mode")
    same((st.st_uid, st.st_gid, st.st_nlink), (0, 0, 1), "owner")
    check(st.st_ino != os.stat(path("d/.clone")).st_ino, "one inode number for two directories")
    check(b"golden.img" in read(".clone"), "it explains nothing")
    same(len(read(".clone")), st.st_size, "size")
    check(".clone" not in os.listdir(MNT) and ".clone" not in os.listdir(path("d")), "it is listed")
    same(read("d/.clone"), read(".clone"), "in a directory")
    raises(errno.ENOTDIR, os.stat, path("g/.clone"))
    raises(errno.ENOTDIR, os.stat, path(".clone/x"))
    fd = os.open(path(".clone"), os.O_RDONLY)
    same(os.pread(fd, 5, st.st_size - 2), read(".clone")[-2:], "read at its end")
    same(os.pread(fd, 5, st.st_size + 5), b"", "read behind it")
    os.fsync(fd)
    os.close(fd)


def test_shell():
    subprocess.run("cd $MNT && echo g a >.clone && echo g b >>.clone && printf 'g c' >d/../.clone && "
                   "echo ../g d >d/.clone && printf '%s\n' '/d/d /e' 'e f' | tee .clone >/dev/null && "
                   "touch .clone", shell=True, check=True)
    same(names(), ["a", "b", "c", "d", "e", "f", "g"], "names")
    same(names("d"), ["d"], "names in d")
    for name in "a", "b", "c", "d/d", "e", "f":
        same(read(name), b"golden" * 1000, name)


def test_quotes():
    for text, name in (
        ("'a b'", "a b"), ('"a  c"', "a  c"), (r"a\ d", "a d"), (r'"q\"q\\q"', 'q"q\\q'), (r"'b\s'", r"b\s"),
        (r'"b\t"', r"b\t"), ("x'y z'\"w v\"", "xy zw v"), (r"\#h", "#h"), (r"\'", "'"), ("\xe4".encode("latin-1"), b"\xe4"),
    ):
        line = b" \tg\t " + (text if isinstance(text, bytes) else text.encode()) + b"  \n"
        taken(line)
        same(read(name if isinstance(name, str) else os.fsdecode(name)), b"golden" * 1000, repr(name))
    taken("'a b' \"a e\"\n")
    check("a e" in names(), "quoted source")
    taken("# a comment\n\n   \ng last\n\n")
    check("last" in names(), "after comments and empty lines")


def test_refused():
    before = names()
    for number, line in (
        (errno.EINVAL, "g\n"), (errno.EINVAL, "g a b\n"), (errno.EINVAL, "g 'a\n"), (errno.EINVAL, 'g "a\n'),
        (errno.EINVAL, "g a\\"), (errno.EINVAL, b"g a\0b\n"), (errno.EEXIST, "g d\n"), (errno.EEXIST, "g g\n"),
        (errno.ENOENT, "none x\n"), (errno.ENOENT, "g none/x\n"), (errno.ENOENT, "g ''\n"), (errno.ENOENT, "'' x\n"),
        (errno.EISDIR, "d x\n"), (errno.ENOTDIR, "g g/x\n"), (errno.ENAMETOOLONG, "g " + "n" * 256 + "\n"),
        (errno.ENAMETOOLONG, "g " + "n/" * 3000 + "\n"), (errno.EINVAL, "g d/..\n"), (errno.EINVAL, "g .\n"),
    ):
        raises(number, put, line)
    for line in "g .clone\n", ".clone x\n", "g d/.clone\n":
        try:
            put(line)
        except OSError:
            continue
        raise AssertionError(f"{line!r} was taken")
    same(names(), before, "names after refused lines")
    same(names("d"), [], "names in d after refused lines")


def test_partial():
    good = "g p1\ng p2\n# and\n"
    same(put(good + "none p3\ng p4\n"), len(good), "bytes taken")
    same([n for n in names() if n[0] == "p"], ["p1", "p2"], "names")
    many = "".join(f"{'g' if i == 0 else 'n%d' % (i - 1)} n{i}\n" for i in range(2000))
    taken(many)
    same(len([n for n in names() if n[0] == "n"]), 2000, "a chain of 2,000 clones in one write")
    same(read("n1999"), b"golden" * 1000, "the last")


def test_protected():
    raises(errno.EPERM, os.unlink, path(".clone"))
    raises(errno.EPERM, os.rename, path(".clone"), path("x"))
    raises(errno.EPERM, os.rename, path("g"), path(".clone"))
    raises(errno.EPERM, os.link, path(".clone"), path("x"))
    raises(errno.EEXIST, os.link, path("g"), path(".clone"))
    raises(errno.EEXIST, os.mkdir, path(".clone"))
    raises(errno.EEXIST, os.symlink, "g", path(".clone"))
    raises(errno.EEXIST, os.open, path(".clone"), os.O_CREAT | os.O_EXCL)
    raises(errno.EPERM, os.chmod, path(".clone"), 0o600)
    raises(errno.EPERM, os.chown, path(".clone"), 1, 1)
    raises(errno.EOPNOTSUPP, os.setxattr, path(".clone"), "user.x", b"1")
    same(os.listxattr(path(".clone")), [], "attributes")
    os.rmdir(path("d"))
    check("g" in names() and "x" not in names(), "names")


def test_other_user():
    """Somebody else's descriptor is not to be trusted with our rights."""
    fd = os.open(path(".clone"), os.O_WRONLY)
    os.setresuid(65534, 65534, 0)
    try:
        raises(errno.EPERM, os.write, fd, b"g stolen\n")
    finally:
        os.setresuid(0, 0, 0)
    os.close(fd)
    check("stolen" not in names(), "a write with somebody's descriptor was taken")


for name, fn in list(globals().items()):
    if name.startswith("test_"):
        print(name, flush=True)
        fresh()
        fn()
END

before=$(ls "$MNT")
remount_pool
[ "$(ls "$MNT")" = "$before" ] || fail "clones are gone: $(ls "$MNT")"
unmount_pool
