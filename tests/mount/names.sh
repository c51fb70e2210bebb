#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Names and attributes as POSIX has them: making, linking, renaming, removing, reading directories, extended attributes.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool
export MNT

python3 - <<'END' || fail "names"
import ctypes
import stat

from vctest import *

libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(path(old)), -100, os.fsencode(path(new)), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def test_make():
    write("a", b"A")
    os.mkdir(path("d"), 0o750)
    os.symlink("d/../a", path("l"))
    os.mkfifo(path("fifo"), 0o600)
    os.mknod(path("null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    same(os.stat(path("d")).st_mode, stat.S_IFDIR | 0o750, "mode of a directory")
    same(os.readlink(path("l")), "d/../a", "link")
    same(read("l"), b"A", "through the link")
    check(stat.S_ISFIFO(os.lstat(path("fifo")).st_mode), "fifo")
    same(os.lstat(path("null")).st_rdev, os.makedev(1, 3), "device number")
    raises(errno.EEXIST, os.mkdir, path("a"))
    raises(errno.EEXIST, os.open, path("a"), os.O_CREAT | os.O_EXCL)
    raises(errno.ENOENT, os.open, path("none/x"), os.O_CREAT)
    raises(errno.ENOTDIR, os.open, path("a/x"), os.O_CREAT)
    raises(errno.ENAMETOOLONG, os.open, path("n" * 256), os.O_CREAT)
    write("n" * 255, b"")
    write(os.fsdecode(b"\xff\xfe \nodd"), b"odd")
    os.symlink("t" * 3800, path("longest"))
    raises(errno.ENAMETOOLONG, os.symlink, "t" * 3801, path("longer"))
    for name in "fifo", "null", "longest":
        os.unlink(path(name))


def test_links():
    ino = os.stat(path("a")).st_ino
    os.link(path("a"), path("d/b"))
    same(os.stat(path("a")).st_nlink, 2, "links")
    same(os.stat(path("d/b")).st_ino, ino, "inode of a link")
    raises(errno.EEXIST, os.link, path("a"), path("d/b"))
    raises(errno.EPERM, os.link, path("d"), path("d2"))
    os.unlink(path("a"))
    same(os.stat(path("d/b")).st_nlink, 1, "links after unlink")
    os.rename(path("d/b"), path("a"))
    same(os.stat(path("a")).st_ino, ino, "inode after rename")
    same(os.stat(path("d")).st_nlink, 2, "links of an empty directory")
    os.mkdir(path("d/sub"))
    same(os.stat(path("d")).st_nlink, 3, "links of a directory with one in it")
    raises(errno.ENOTEMPTY, os.rmdir, path("d"))
    os.rmdir(path("d/sub"))


def test_rename():
    write("x", b"X")
    write("y", b"Y")
    raises(errno.EEXIST, renameat2, "x", "y", 1)
    renameat2("x", "y", 2)
    same((read("x"), read("y")), (b"Y", b"X"), "exchanged")
    raises(errno.ENOENT, renameat2, "x", "none", 2)
    raises(errno.EINVAL, renameat2, "x", "y", 4)
    renameat2("x", "z", 1)
    same(sorted(n for n in os.listdir(MNT) if n in "xyz"), ["y", "z"], "renamed")
    with open(path("y"), "rb") as f:
        os.rename(path("z"), path("y"))
        same(f.read(), b"X", "the replaced file, still open")
        same(os.fstat(f.fileno()).st_nlink, 0, "its links")
    same(read("y"), b"Y", "replaced")
    os.mkdir(path("e"))
    os.mkdir(path("e/f"))
    raises(errno.EINVAL, os.rename, path("e"), path("e/f/g"))
    raises(errno.ENOTEMPTY, os.rename, path("d"), path("e"))
    raises(errno.EISDIR, os.rename, path("y"), path("e"))
    raises(errno.ENOTDIR, os.rename, path("e"), path("y"))
    os.rename(path("e/f"), path("d/f"))
    same(os.stat(path("d/f/..")).st_ino, os.stat(path("d")).st_ino, "..")
    same((os.stat(path("d")).st_nlink, os.stat(path("e")).st_nlink), (3, 2), "links of both parents")
    os.rmdir(path("d/f"))
    os.rmdir(path("e"))


def test_unlinked_open():
    fd = os.open(path("gone"), os.O_RDWR | os.O_CREAT)
    os.unlink(path("gone"))
    os.pwrite(fd, b"still here", 5000)
    same(os.pread(fd, 20, 5000), b"still here", "an unlinked file")
    same(os.fstat(fd).st_size, 5010, "its size")
    os.ftruncate(fd, 5)
    same(os.fstat(fd).st_size, 5, "its new size")
    os.close(fd)
    raises(errno.ENOENT, os.stat, path("gone"))


def test_attributes():
    os.chmod(path("a"), 0o4711)
    os.chown(path("a"), 12, 34)
    st = os.stat(path("a"))
    same((st.st_uid, st.st_gid), (12, 34), "owner")
    same(st.st_mode & 0o7777, 0o711, "chown drops set-user-id")
    os.utime(path("a"), ns=(1_000_000_001, 2_000_000_002))
    st = os.stat(path("a"))
    same((st.st_atime_ns, st.st_mtime_ns), (1_000_000_001, 2_000_000_002), "times")
    write("a", b"changed")
    check(os.stat(path("a")).st_mtime_ns > 2_000_000_002, "a write sets mtime")
    before = os.stat(path("d")).st_mtime_ns
    write("d/new", b"")
    check(os.stat(path("d")).st_mtime_ns >= before, "a new name sets the directory's mtime")
    os.unlink(path("d/new"))
    os.mkdir(path("sg"))
    os.chown(path("sg"), 0, 77)
    os.chmod(path("sg"), 0o2755)
    write("sg/x", b"")
    same(os.stat(path("sg/x")).st_gid, 77, "group from a set-group-id directory")


def test_xattr():
    os.setxattr(path("a"), "user.k", b"v1")
    raises(errno.EEXIST, os.setxattr, path("a"), "user.k", b"v2", os.XATTR_CREATE)
    raises(errno.ENODATA, os.setxattr, path("a"), "user.other", b"v2", os.XATTR_REPLACE)
    os.setxattr(path("a"), "user.k", b"v2", os.XATTR_REPLACE)
    os.setxattr(path("a"), "user.empty", b"")
    os.setxattr(path("a"), "trusted.t", b"\0\1\2")
    same(os.getxattr(path("a"), "user.k"), b"v2", "value")
    same(os.getxattr(path("a"), "user.empty"), b"", "empty value")
    same(sorted(os.listxattr(path("a"))), ["trusted.t", "user.empty", "user.k"], "list")
    os.removexattr(path("a"), "user.k")
    raises(errno.ENODATA, os.getxattr, path("a"), "user.k")
    raises(errno.ENODATA, os.removexattr, path("a"), "user.k")
    os.setxattr(path("a"), "user.large", b"x" * 3800)
    same(len(os.getxattr(path("a"), "user.large")), 3800, "largest value")
    raises(errno.E2BIG, os.setxattr, path("a"), "user.large", b"x" * 3801)
    raises(errno.EOPNOTSUPP, os.setxattr, path("a"), "system.other", b"x")
    raises(errno.EOPNOTSUPP, os.setxattr, path("a"), "security.capability", b"\0\0\0\2" + bytes(16))
    os.setxattr(path("d"), "user.dir", b"1")
    same(os.listxattr(path("d")), ["user.dir"], "list of a directory")


def test_readdir():
    """What is there all the time appears exactly once, whatever comes and goes meanwhile."""
    os.mkdir(path("many"))
    stay = {f"stay-{i:04}" for i in range(3000)}
    for name in sorted(stay):
        write("many/" + name, b"")
    for i in range(500):
        write(f"many/go-{i:04}", b"")
    seen = []
    gone = 0
    with os.scandir(path("many")) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 7 == 0 and gone < 500:
                os.unlink(path(f"many/go-{gone:04}"))
                write(f"many/come-{gone:04}", b"")
                gone += 1
    same(len(seen), len(set(seen)), "names seen twice")
    check(stay <= set(seen), "missed: %s" % sorted(stay - set(seen))[:5])
    raises(errno.ENOTEMPTY, os.rmdir, path("many"))
    ino = {e.name: e.inode() for e in os.scandir(path("many"))}
    for name in list(ino)[::97]:
        same(ino[name], os.stat(path("many/" + name)).st_ino, "inode of " + name)


def test_misc():
    same(os.stat(MNT).st_ino, 1, "inode of the root")
    check(".clone" not in os.listdir(MNT), ".clone is listed")
    st = os.statvfs(MNT)
    check(st.f_blocks > 0 and 0 < st.f_bavail <= st.f_blocks, "statfs")
    same(st.f_namemax, 255, "statfs: longest name")
    fd = os.open(path("d"), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


for name, fn in list(globals().items()):
    if name.startswith("test_"):
        print(name, flush=True)
        fn()
END

before=$(cd "$MNT" && find . -printf '%p %y %m %n %U %G %s %l %T@ %i\n' | grep -av '^\./many' | sort)
remount_pool
after=$(cd "$MNT" && find . -printf '%p %y %m %n %U %G %s %l %T@ %i\n' | grep -av '^\./many' | sort)
[ "$before" = "$after" ] || fail "changed by unmounting:
$(diff <(echo "$before") <(echo "$after"))"

# The kernel may ask for inodes by number: a file handle that outlives the mount's caches.
rm -rf "$MNT"/*
[ -z "$(ls -A "$MNT")" ] || fail "rm -rf left something"
unmount_pool
