# SPDX-License-Identifier: BSD-2-Clause
"""The table of hostile.sh: who does what, and the errno he must get.

Each row runs in a process of its own with the rights of its user. A row that is refused must leave everything as it was: the number of
the last log record (everything that changes state is a record) and of images, which are looked at after each row; names, modes, owners,
sizes, times, contents, attributes, after some. A row with `want` 0 is the control: the same operation by somebody who may must work and
leave a record, so that neither a mount that refuses everything nor a test that does nothing can pass.
"""
import ctypes
import errno as E
import hashlib
import itertools
import mmap
import stat
import traceback

from vctest import *

OWNER, MALLORY, MEMBER, ROOT, SETGID = "owner", "mallory", "member", "root", "mallory in a set-group-id program"
STAFF = 2500
USERS = {OWNER: (2000, 2000, []), MALLORY: (2001, 2001, []), MEMBER: (2002, 2002, [STAFF]), ROOT: (0, 0, []), SETGID: (2001, STAFF, [])}
OTHERS = (MALLORY, MEMBER)
R, W, RW, P = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_PATH
FICLONE, FS_IOC_SETFLAGS, FS_IOC_GETFLAGS = 0x40049409, 0x40086602, 0x80086601
PUNCH, KEEP, ZERO = 2, 1, 16
DATA = {}
libc = ctypes.CDLL(None, use_errno=True)


def sysctl(name):
    """Protections that machines choose for themselves; what is not there is off."""
    try:
        with open("/proc/sys/fs/" + name) as f:
            return int(f.read())
    except OSError:
        return 0


# ---- what is there ----

def make(name, mode, uid=2000, gid=2000, size=5000):
    DATA[name] = random.Random(name).randbytes(size)
    write(name, DATA[name])
    os.chown(path(name), uid, gid)
    os.chmod(path(name), mode)


def make_dir(name, mode, uid=2000, gid=2000):
    os.mkdir(path(name))
    os.chown(path(name), uid, gid)
    os.chmod(path(name), mode)


def build():
    os.chmod(MNT, 0o755)
    for name, mode, uid, gid in (("open", 0o777, 0, 0), ("sticky", 0o1777, 0, 0), ("secret", 0o700, 2000, 2000),
                                 ("search", 0o711, 2000, 2000), ("list", 0o744, 2000, 2000), ("fixed", 0o555, 2000, 2000),
                                 ("group", 0o2770, 2000, STAFF), ("drop", 0o733, 2000, 2000)):
        make_dir(name, mode, uid, gid)
    for name, mode in (("pub", 0o644), ("priv", 0o600), ("none", 0), ("wo", 0o622), ("rw", 0o666), ("secret/img", 0o644),
                       ("search/img", 0o644), ("search/hidden", 0o600), ("list/img", 0o644), ("fixed/img", 0o644),
                       ("sticky/img", 0o644), ("open/img", 0o644), ("open/priv", 0o600)):
        make(name, mode)
    make("grp", 0o640, gid=STAFF)
    make("not-staff", 0o604, gid=STAFF)
    make("group/img", 0o640, gid=STAFF)
    make("open/both", 0o6755, gid=STAFF)
    make("open/mine", 0o644, 2001, 2001)
    make("open/members", 0o644, 2002, 2002)
    make_dir("sticky/dir", 0o755)
    make_dir("secret/dir", 0o777)
    make("secret/dir/img", 0o666)
    os.symlink("priv", path("to-priv"))
    os.symlink("secret/img", path("to-secret"))
    os.symlink("/pub", path("to-pub"))
    os.symlink("loop", path("loop"))
    for name, target in ("trap", "../pub"), ("trap-dir", "../open"):
        os.symlink(target, path("sticky/" + name))
        os.lchown(path("sticky/" + name), 2001, 2001)
    os.mkfifo(path("fifo"), 0o666)
    os.chmod(path("fifo"), 0o666)
    os.mknod(path("dev"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(path("dev"), 0o666)
    for name in "pub", "priv":
        os.setxattr(path(name), "user.note", b"for those who may read it")
        os.setxattr(path(name), "trusted.note", b"for root")


def snapshot():
    seen = {}
    for dir, dirs, files in os.walk(MNT):
        for name in [""] + files + [d for d in dirs if os.path.islink(os.path.join(dir, d))]:
            full = os.path.join(dir, name) if name else dir
            st = os.lstat(full)
            what = [stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns]
            if stat.S_ISREG(st.st_mode):
                with open(full, "rb") as f:
                    what.append(hashlib.sha1(f.read()).hexdigest())
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(full))
            what += [(x, os.getxattr(full, x, follow_symlinks=False)) for x in os.listxattr(full, follow_symlinks=False)]
            seen[os.path.relpath(full, MNT)] = what
    return seen


def figures():
    """The number of the last log record, and of images."""
    df = struct.unpack("<II16s15Q8Q32s", ioctl(".", DF, df_arg()))
    return {"last record": df[14], "images": df[10]}


# ---- operations: each is called with the row's arguments, with the rights of its user ----

def fd_ioctl(fd, number, data):
    fcntl.ioctl(fd, number, bytearray(data))


def clone(src, dst):
    ioctl(".", CLONE, clone_arg(src, dst))


def clone_many(src, dst):
    ioctl(".", CLONE_MANY, clone_many_arg(src, dst + "%d" if dst and dst[-1:] != "." else dst, 7, 2))


def quoted(name):
    return "'" + name + "'"


def magic(src, dst, dir=".", flags=W):
    fd = os.open(path(os.path.join(dir, ".clone")), flags)
    text = f"{quoted(src)} {quoted(dst)}\n".encode()
    same(os.write(fd, text), len(text), "a write")


def magic_text(text):
    os.write(os.open(path(".clone"), W), text)


def clone_own(src, dst):
    ioctl(src, CLONE, clone_arg("", "/" + dst), R | os.O_NONBLOCK)


def clone_from_dir(dir, src, dst):
    ioctl(dir, CLONE, clone_arg(src, dst))


def clone_written(src, dst):
    ioctl(src, CLONE, clone_arg("", "/" + dst), W)


def clone_many_written(src, dst):
    ioctl(src, CLONE_MANY, clone_many_arg("", "/" + dst + "%d", 7, 2), W)


def range_of(src_ino, dst, flags=RW, **kwargs):
    ioctl(dst, CLONE_RANGE, range_arg(src_ino, **kwargs), flags)


def range_open(src, dst, src_flags=R, dst_flags=RW):
    """As the preload library does it: with the source open."""
    fd = os.open(path(src), src_flags)
    range_of(os.fstat(fd).st_ino, dst, dst_flags)


def copy_range(src, dst, src_flags=R, dst_flags=W):
    a, b = os.open(path(src), src_flags), os.open(path(dst), dst_flags)
    os.copy_file_range(a, b, 5000)


def ficlone(src, dst):
    a, b = os.open(path(src), R), os.open(path(dst), RW)
    fcntl.ioctl(b, FICLONE, a)


def open_as(name, flags, mode=0o600):
    os.close(os.open(path(name), flags, mode))


def reopen(name, flags):
    """From O_PATH to something better."""
    fd = os.open(path(name), P)
    os.close(os.open(f"/proc/self/fd/{fd}", flags))


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def on_fd(name, flags, what, *args):
    what(os.open(path(name), flags), *args)


def own_of_fd(fd, dst):
    fd_ioctl(fd, CLONE, clone_arg("", "/" + dst))


def clone_of_fd(fd, src, dst):
    fd_ioctl(fd, CLONE, clone_arg(src, dst))


def range_to_fd(fd, src):
    fd_ioctl(fd, CLONE_RANGE, range_arg(INO[src]))


def range_to_fd_open(fd, src):
    keep = os.open(path(src), R)
    fd_ioctl(fd, CLONE_RANGE, range_arg(INO[src]))
    os.close(keep)


def map_fd(fd, prot):
    mmap.mmap(fd, 4096, mmap.MAP_SHARED, prot)


def touch(name):
    os.utime(path(name))


def utimes(name):
    os.utime(path(name), (1, 2))


def at(call, name, *args):
    return call(path(name), *args)


def rename(a, b):
    os.rename(path(a), path(b))


def exchange(a, b):
    if libc.renameat2(-100, path(a).encode(), -100, path(b).encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def link(a, b):
    os.link(path(a), path(b))


def symlink(target, name):
    os.symlink(target, path(name))


def handle_open(name):
    """open_by_handle_at goes round all directories: for those with CAP_DAC_READ_SEARCH only."""
    buf, mount = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0) + bytes(128)), ctypes.c_int()
    if libc.name_to_handle_at(-100, path(name).encode(), buf, ctypes.byref(mount), 0) < 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    dir = os.open(MNT, R)
    if libc.open_by_handle_at(dir, buf, R) < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")


def fd_write(fd, data=b"x" * 100):
    os.write(fd, data)


# ---- rows ----

class Row:
    def __init__(self, who, want, what, *args, inherit=None, before=None, quiet=False, after=None):
        self.who, self.want, self.what, self.args = who, want, what, args
        self.after = after     # (name, mode, uid, gid) it must have then
        self.inherit = inherit # (user, name, flags) or more: descriptors opened by somebody else, first arguments
        self.before = before   # called as root first
        self.quiet = quiet     # works, and changes nothing

    def __str__(self):
        args = ", ".join(short(a.__name__ if callable(a) else a) for a in (self.inherit or ()) + self.args)
        return f"{self.who}: {self.what.__name__}({args})"


def names():
    return (f"open/new-{i}" for i in itertools.count())


NEW = names()
ROWS = []


def rows(who, want, what, *args, **kwargs):
    for one in (who,) if isinstance(who, str) else who:
        ROWS.append(Row(one, want, what, *args, **kwargs))


def rows_clone():
    """Every way to clone x every source and every target."""
    ways = (clone, clone_many, magic, clone_own)
    for way in ways:
        for src in "priv", "secret/img", "search/hidden", "list/img", "none", "wo", "to-priv", "to-secret", "secret/dir/img":
            rows(OTHERS, E.EACCES, way, src, "open/x")
        for src in "grp", "group/img":
            rows(MALLORY, E.EACCES, way, src, "open/x")
            rows(MEMBER, 0, way, src, next(NEW))
        rows(MEMBER, E.EACCES, way, "not-staff", "open/x")
        rows(MALLORY, 0, way, "not-staff", next(NEW))
        rows(MALLORY, 0, way, "search/img", next(NEW))
        rows(MALLORY, 0, way, "to-pub" if way != clone_own else "pub", next(NEW))
        for src in "priv", "secret/img", "list/img":
            rows(OWNER, 0, way, src, next(NEW))
        rows(ROOT, 0, way, "none", "secret/by-root-" + way.__name__)
        rows(MALLORY, E.ENOENT, way, "missing", "open/x")
        rows(MALLORY, E.ENOTDIR, way, "pub/below", "open/x")
        rows(MALLORY, E.ELOOP, way, "loop", "open/x")
        rows(MALLORY, E.EISDIR if way != clone_own else E.EISDIR, way, "open", "open/x")
        if way != clone_own:
            rows(MALLORY, E.EINVAL, way, "fifo", "open/x")
            rows(MALLORY, E.EINVAL, way, "dev", "open/x")
            rows(MALLORY, E.ENOENT, way, ".clone", "open/x")
            rows(MALLORY, E.ENOENT, way, "../../missing", "open/x")
            rows(ROOT, E.EACCES, way, "sticky/trap", "open/x")
            rows(OWNER, E.EACCES, way, "sticky/trap", "open/x")
            rows(OWNER, E.EACCES, way, "pub", "sticky/trap-dir/x")
            rows(MALLORY, 0, way, "sticky/trap", next(NEW))
        for dst in "secret/x", "search/x", "list/x", "fixed/x", "x", "secret/dir/x":
            rows(OTHERS, E.EACCES, way, "pub", dst)
        rows(MALLORY, E.EACCES, way, "pub", "group/x")
        rows(MEMBER, 0, way, "pub", "group/by-" + way.__name__)
        rows(MALLORY, 0, way, "pub", "sticky/by-" + way.__name__)
        rows(MALLORY, 0, way, "pub", "drop/by-" + way.__name__)
        rows(MALLORY, E.ENOENT, way, "pub", "missing/x")
        rows(MALLORY, E.ENOTDIR, way, "pub", "rw/x")
        rows(MALLORY, E.EINVAL, way, "pub", "open/.")
        rows(MALLORY, E.ENAMETOOLONG, way, "pub", "open/" + "y" * 256)
        rows(MALLORY, E.ENOENT, way, "pub", "open/" + "y" * 255 + "/" + "z" * 300)
    for way in clone, magic, clone_own:
        rows(MALLORY, E.EEXIST, way, "pub", "open/img")
        rows(MALLORY, E.EEXIST, way, "pub", "open/mine")
        rows(MALLORY, E.EINVAL, way, "pub", "open/.clone")
        rows(MALLORY, E.EINVAL, way, "pub", "open/..")
    for way in clone_written, clone_many_written: # through a descriptor of one's own, for writing
        rows(OTHERS, E.EACCES, way, "wo", "open/x")
        rows(MALLORY, 0, way, "rw", next(NEW))
        rows(OWNER, 0, way, "wo", next(NEW))
    rows(MALLORY, E.EEXIST, clone_many, "pub", "open/taken", before=lambda: write("open/taken8", b""))
    rows(OTHERS, E.EACCES, magic, "img", "x", "secret")
    rows(OTHERS, E.EACCES, magic, "img", "x", "fixed")
    rows(OTHERS, E.EACCES, magic, "img", "../open/x", "list")
    rows(OTHERS, E.EACCES, magic, "img", "x", "search")
    rows(OWNER, 0, magic, "img", "magic-here", "secret")
    rows(MALLORY, E.EACCES, magic, "/pub", "x", "group")
    rows(MEMBER, 0, magic, "img", "magic-here", "group")
    rows(OTHERS, E.EACCES, clone_from_dir, "secret", "img", "/open/x")
    rows(OTHERS, E.EACCES, clone_from_dir, "list", "img", "/open/x")
    rows(OTHERS, E.EACCES, clone_from_dir, "open", "../secret/img", "x")
    rows(OTHERS, E.EACCES, clone_from_dir, "open", "img", "../fixed/x")
    rows(OWNER, 0, clone_from_dir, "secret", "img", "from-dir")


def rows_range():
    """Sources by inode number: the one who asks must have been let through the directories to it."""
    for src in INO:
        if src in ("secret/img", "secret/dir/img", "list/img"):
            rows(OTHERS, E.EACCES, range_of, INO[src], "rw")
    for src in "priv", "none", "wo", "grp", "search/hidden":
        rows(MALLORY, E.EACCES, range_of, INO[src], "rw")
        rows(MALLORY, E.EACCES, range_of, INO[src], "open/mine")
    rows(MALLORY, E.EACCES, range_of, INO["pub"], "open/mine")  # readable, but not opened
    rows(MALLORY, E.EACCES, range_open, "wo", "open/mine", W)
    rows(OTHERS, E.EACCES, range_open, "priv", "rw")
    rows(OTHERS, E.EACCES, range_open, "pub", "open/img")
    rows(OTHERS, E.EACCES, range_open, "pub", "grp")
    rows(OTHERS, E.EBADF, range_open, "pub", "open/img", R, R)
    rows(MALLORY, E.EBADF, range_open, "pub", "open/mine", R, R)
    rows(MALLORY, E.EBADF, range_open, "pub", "open/mine", R, RW | os.O_APPEND)
    rows(MALLORY, E.EACCES, range_open, "pub", "open/mine", P)
    rows(MALLORY, 0, range_open, "pub", "open/mine")
    rows(MALLORY, 0, range_open, "pub", "rw", R, W)
    rows(MEMBER, 0, range_open, "grp", "open/members")
    rows(OWNER, 0, range_open, "secret/img", "open/img")
    rows(ROOT, 0, range_open, "none", "rw")
    for bad in 0, 1 << 40, (1 << 63) - 1:
        rows(MALLORY, E.ENOENT, range_of, bad, "open/mine")
    rows(MALLORY, E.EISDIR, range_of, 1, "open/mine")
    rows(MALLORY, E.EINVAL, range_of, INO["pub"] | 1 << 63, "open/mine")


def rows_descriptors():
    """Descriptors of somebody with more rights, handed down."""
    root = lambda name, flags: ((ROOT, name, flags),)
    rows(MALLORY, 0, own_of_fd, next(NEW), inherit=root("priv", R))  # he may read it all the same
    rows(OTHERS, E.EACCES, own_of_fd, "open/x", inherit=root("priv", W))
    rows(OTHERS, E.EACCES, own_of_fd, "fixed/x", inherit=root("priv", R))
    rows(OTHERS, E.EBADF, own_of_fd, "open/x", inherit=root("priv", P))
    rows(MALLORY, E.EACCES, clone_of_fd, "img", "/open/x", inherit=root("secret", R))
    rows(MALLORY, E.EACCES, clone_of_fd, "/priv", "/open/x", inherit=root("secret", R))
    rows(MALLORY, E.EACCES, clone_of_fd, "/pub", "x", inherit=root("secret", R))
    rows(MALLORY, E.EBADF, clone_of_fd, "/pub", "/open/x", inherit=root("open", P))
    rows(MALLORY, E.EACCES, range_to_fd, "priv", inherit=root("rw", W))
    rows(MALLORY, E.EACCES, range_to_fd, "secret/img", inherit=root("priv", RW))
    rows(MALLORY, E.EBADF, range_to_fd_open, "pub", inherit=root("priv", R))
    rows(MALLORY, 0, range_to_fd_open, "pub", inherit=root("rw", W))
    rows(OTHERS, E.EPERM, fd_write, b"pub open/x\n", inherit=root(".clone", W))
    rows(ROOT, E.EPERM, fd_write, b"priv open/x\n", inherit=((MALLORY, ".clone", W),))
    rows(SETGID, E.EPERM, fd_write, b"grp open/x\n", inherit=((MALLORY, ".clone", W),))
    rows(SETGID, 0, fd_write, ("grp " + next(NEW) + "\n").encode(), inherit=((SETGID, ".clone", W),))
    rows(MALLORY, E.EPERM, fd_write, b"pub open/x\n", inherit=((MEMBER, ".clone", W),))
    rows(OTHERS, E.EBADF, fd_write, inherit=root("priv", R))
    rows(OTHERS, E.EBADF, os.read, 10, inherit=root("priv", W))
    rows(OTHERS, E.EBADF, os.read, 10, inherit=root("priv", P))
    rows(OTHERS, E.EINVAL, os.ftruncate, 0, inherit=root("priv", R))
    rows(OTHERS, E.EBADF, fallocate, 0, 0, 4096, inherit=root("priv", R))
    rows(OTHERS, E.EBADF, fallocate, PUNCH | KEEP, 0, 4096, inherit=root("priv", R))
    rows(OTHERS, E.EBADF, fallocate, ZERO, 0, 4096, inherit=root("priv", R))
    rows(OTHERS, E.EPERM, os.fchmod, 0o777, inherit=root("priv", RW))
    rows(OTHERS, E.EPERM, os.fchown, 2001, 2001, inherit=root("priv", RW))
    rows(OTHERS, E.EACCES, map_fd, mmap.PROT_READ | mmap.PROT_WRITE, inherit=root("priv", R))
    rows(OTHERS, E.EACCES, map_fd, mmap.PROT_READ, inherit=root("priv", W))
    rows(MALLORY, E.EBADF, os.copy_file_range, 100, inherit=root("priv", W) + root("rw", W))
    rows(MALLORY, E.EBADF, os.copy_file_range, 100, inherit=root("pub", R) + root("priv", R))
    rows(MALLORY, E.EBADF, os.copy_file_range, 100, inherit=root("pub", R) + root("priv", RW | os.O_APPEND))
    rows(MALLORY, 0, os.copy_file_range, 100, inherit=root("pub", R) + root("rw", W))


def rows_malformed():
    """Absurd counts, sizes, strings and fields."""
    long = b"x" * 4096
    for name, number, data, want in (
            (".", CLONE, clone_arg("pub", "open/x", size=0), E.EINVAL),
            (".", CLONE, clone_arg("pub", "open/x", size=0xffffffff), E.EINVAL),
            (".", CLONE, clone_arg("pub", "open/x", flags=1 << 31), E.EINVAL),
            (".", CLONE, clone_arg("pub", "open/x", reserved=(0, 1, 0)), E.EINVAL),
            (".", CLONE, clone_arg(long, "open/x"), E.EINVAL),
            (".", CLONE, clone_arg("pub", long), E.EINVAL),
            (".", CLONE, clone_arg("pub", ""), E.ENOENT),
            (".", CLONE, clone_arg("", "open/x"), E.EISDIR),
            (".clone", CLONE, clone_arg("", "open/x"), E.EINVAL),
            (".", CLONE, clone_arg("a/" * 2047, "open/x"), E.ENOENT),
            (".", CLONE, clone_arg("/" * 4095, "open/x"), E.EISDIR),
            (".", CLONE, clone_arg("pub", "open/" + "../open/" * 500), E.EACCES),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, 0), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, 10001), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, (1 << 32) - 1), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, 1 << 31), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, 2, flags=2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/x%d", 0, 2, reserved=(1, 0)), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", long, 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg(long, "open/x%d", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%n", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%s%d", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%99999999d", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%*d", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%d%d", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/%", 0, 2), E.EINVAL),
            (".", CLONE_MANY, clone_many_arg("pub", "open/" + "z" * 250 + "%09d", 0, 2), E.ENAMETOOLONG),
            (".", CLONE_MANY, clone_many_arg("pub", "%d/x", 0, 2), E.ENOENT),
            ("pub", INFO, info_arg(size=0xffffffff), E.EINVAL),
            ("pub", INFO, info_arg(reserved=(1, 0, 0, 0)), E.EINVAL),
            (".", INFO, info_arg(), E.EISDIR),
            (".clone", INFO, info_arg(), E.EINVAL),
            (".", DF, df_arg(size=0), E.EINVAL),
            (".", DF, df_arg(reserved=(1,) + (0,) * 7), E.EINVAL),
            (".", TASK_START, task_arg(2), E.EINVAL),
            (".", TASK_START, task_arg((1 << 32) - 1), E.EINVAL),
            (".", TASK_STATUS, task_arg(7), E.EINVAL),
            (".", TASK_START, task_arg(0, reserved=(0, 0, 0, 1)), E.EINVAL),
            ("pub", DIOINFO, bytes(12), 0),
            (".", DIOINFO, bytes(12), E.ENOTTY)):
        rows(MALLORY, want, ioctl, name, number, data, quiet=want == 0)
    for number in CLONE, CLONE_MANY, CLONE_RANGE, INFO, DF, TASK_START, TASK_STATUS:
        size = number >> 16 & 0x3fff
        for other in 0, 4, size - 8, size + 8, 16383:
            wrong = number & ~(0x3fff << 16) | other << 16
            rows(MALLORY, E.ENOTTY, ioctl, "pub", wrong, struct.pack("<I", other) + bytes(max(other - 4, 0)))
        rows(MALLORY, E.ENOTTY, ioctl, "pub", number ^ 0x80000000, struct.pack("<I", size) + bytes(size - 4))
    for number in 0, 0x5401, 0xC0045699, CLONE + 7, CLONE - 1, (1 << 32) - 1:
        rows(MALLORY, E.ENOTTY, ioctl, "pub", number, bytes(16384))
    for task in 0, 1:
        rows(OTHERS + (OWNER,), E.EACCES, ioctl, ".", TASK_START, task_arg(task))
        rows(OTHERS + (OWNER,), E.EACCES, ioctl, "pub", TASK_STATUS, task_arg(task))
        rows(ROOT, 0, ioctl, ".", TASK_STATUS, task_arg(task), quiet=True)
    rows(OTHERS, 0, ioctl, "pub", INFO, info_arg(), quiet=True)
    rows(OTHERS, 0, ioctl, "wo", INFO, info_arg(), W, quiet=True)
    rows(OTHERS, E.EACCES, ioctl, "priv", INFO, info_arg())
    rows(OTHERS, E.EACCES, ioctl, "secret/img", INFO, info_arg())
    rows(OTHERS, E.EBADF, ioctl, "priv", INFO, info_arg(), P)
    rows(OTHERS, 0, ioctl, "open", DF, df_arg(), quiet=True)
    for text, want in ((b"pub\n", E.EINVAL), (b"pub open/x y\n", E.EINVAL), (b"'pub open/x\n", E.EINVAL), (b"pub \"open/x\n", E.EINVAL),
                       (b"pub open/x\\\n", E.EINVAL), (b"pub open/\0x\n", E.EINVAL), (b"\0" * 4096, E.EINVAL),
                       (b"pub " + b"y" * 5000 + b"\n", E.ENAMETOOLONG), (b"z" * (1 << 20), E.ENAMETOOLONG),
                       (b"\xff\xfe\n", E.EINVAL), (b"pub ''\n", E.ENOENT), (b"'' open/x\n", E.ENOENT)):
        rows(MALLORY, want, magic_text, text)
    rows(MALLORY, 0, magic_text, b"# nothing\n\n\n", quiet=True)


def rows_files():
    """What the kernel checks, if it is told the truth."""
    for name in "priv", "none", "grp", "secret/img", "search/hidden", "list/img", "group/img":
        who = MALLORY if name in ("grp", "group/img") else OTHERS
        rows(who, E.EACCES, open_as, name, R)
        rows(who, E.EACCES, open_as, name, RW | os.O_TRUNC)
        rows(who, E.EACCES, at, os.truncate, name, 0)
    rows(MEMBER, 0, open_as, "grp", R, quiet=True)
    for name in "pub", "fixed/img", "sticky/img", "search/img":
        for flags in W, RW, W | os.O_TRUNC, W | os.O_APPEND, R | os.O_TRUNC, W | os.O_DIRECT, W | os.O_CREAT:
            rows(MALLORY, E.EACCES, open_as, name, flags)
        rows(OTHERS, E.EACCES, at, os.truncate, name, 1)
        rows(OTHERS, E.EPERM, at, os.chmod, name, 0o777)
        rows(OTHERS, E.EPERM, at, os.chown, name, 2001, -1)
        rows(OTHERS, E.EPERM, at, os.chown, name, -1, STAFF)
        rows(OTHERS, E.EPERM, utimes, name)
        rows(OTHERS, E.EACCES, touch, name)
        rows(OTHERS, E.EACCES, at, os.setxattr, name, "user.x", b"1")
    rows(OTHERS, E.EACCES, reopen, "priv", R)
    rows(OTHERS, E.EACCES, reopen, "pub", W)
    rows(OTHERS, E.EPERM, utimes, "rw")
    rows(OTHERS, E.EPERM, at, os.chmod, "rw", 0o4777)
    rows(OTHERS, E.EPERM, handle_open, "pub")
    rows(MALLORY, 0, touch, "rw")
    rows(OWNER, 0, at, os.truncate, "priv", 4000)
    rows(OWNER, 0, at, os.chmod, "priv", 0o600)
    rows(OWNER, 0, utimes, "pub")
    rows(OWNER, E.EPERM, at, os.chown, "pub", 2001, -1)
    rows(OWNER, E.EPERM, at, os.chown, "pub", -1, STAFF)
    rows(OTHERS, E.EPERM, at, os.lchown, "to-priv", 2001, 2001)
    rows(OTHERS, E.EACCES, open_as, "open/img", os.O_TRUNC | W)
    rows(OTHERS, E.EACCES, copy_range, "priv", "rw")
    rows(OTHERS, E.EACCES, copy_range, "pub", "open/img")
    rows(OTHERS, E.EBADF, copy_range, "wo", "rw", W)
    rows(OTHERS, E.EBADF, copy_range, "pub", "rw", R, R)
    rows(OTHERS, E.EBADF, copy_range, "pub", "rw", R, W | os.O_APPEND)
    rows(MALLORY, 0, copy_range, "pub", "rw")
    rows(MALLORY, E.EOPNOTSUPP, ficlone, "pub", "rw")
    rows(OTHERS, E.EACCES, open_as, "fixed/x", W | os.O_CREAT)
    rows(OTHERS, E.EACCES, open_as, "secret/x", W | os.O_CREAT)
    rows(OTHERS, E.EACCES, open_as, "x", W | os.O_CREAT | os.O_EXCL)
    rows(MALLORY, E.EACCES, open_as, "dev", R)  # nodev
    rows(MALLORY, E.ENOTTY, on_fd, "open/mine", RW, fd_ioctl, FS_IOC_SETFLAGS, struct.pack("<Q", 0x10))


def rows_names():
    rows(OTHERS, E.EPERM, at, os.unlink, "sticky/img")
    rows(OTHERS, E.EPERM, at, os.rmdir, "sticky/dir")
    rows(OTHERS, E.EPERM, rename, "sticky/img", "open/x")
    rows(OTHERS, E.EPERM, rename, "sticky/img", "sticky/x")
    rows(MALLORY, E.EPERM, rename, "open/mine", "sticky/img")
    rows(MALLORY, E.EPERM, exchange, "open/mine", "sticky/img")
    rows(MALLORY, E.EPERM, exchange, "sticky/img", "open/mine")
    for name in "secret/img", "fixed/img", "search/img", "pub", "list/img":
        rows(OTHERS, E.EACCES, at, os.unlink, name)
        rows(OTHERS, E.EACCES, rename, name, "open/x")
        rows(MALLORY, E.EACCES, rename, "open/mine", name)
        rows(MALLORY, E.EACCES, link, "open/mine", os.path.join(os.path.dirname(name), "x"))
        rows(MALLORY, E.EACCES, exchange, "open/mine", name)
    for dir in ".", "secret", "fixed", "search", "list":
        rows(OTHERS, E.EACCES, at, os.mkdir, os.path.join(dir, "x"))
        rows(MALLORY, E.EACCES, symlink, "pub", os.path.join(dir, "x"))
        rows(MALLORY, E.EACCES, at, os.mkfifo, os.path.join(dir, "x"))
    rows(OTHERS, E.EACCES, at, os.rmdir, "secret")
    rows(OTHERS, E.EACCES, rename, "secret", "open/x")
    rows(OTHERS, E.EACCES, at, os.listdir, "secret")
    rows(OTHERS, E.EACCES, at, os.listdir, "search")
    rows(OTHERS, E.EACCES, at, os.chdir, "list")
    rows(OTHERS, E.EACCES, at, os.stat, "secret/img")
    rows(OTHERS, E.EACCES, at, os.readlink, "secret/img")
    rows(OTHERS, E.EPERM, at, os.mknod, "open/x", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    rows(OTHERS, E.EPERM, at, os.mknod, "open/x", 0o666 | stat.S_IFBLK, os.makedev(7, 0))
    for secret in "priv", "secret/img", "open/priv":
        # Otherwise the kernel lets everybody link to everything he can name.
        want = E.EACCES if secret.startswith("secret") else E.EPERM if sysctl("protected_hardlinks") else None
        if want:
            rows(OTHERS, want, link, secret, "open/x")
    rows(MALLORY, 0, link, "open/mine", next(NEW))
    rows(OWNER, 0, link, "secret/img", "secret/linked")
    rows(OWNER, 0, rename, "sticky/img", "sticky/moved")
    rows(OWNER, 0, rename, "sticky/moved", "sticky/img")
    rows(OWNER, 0, at, os.rmdir, "sticky/dir")
    rows(OWNER, 0, at, os.mkdir, "sticky/dir")
    rows(OWNER, 0, at, os.unlink, "secret/linked")
    rows(ROOT, 0, at, os.mknod, "open/root-made", 0o600 | stat.S_IFCHR, os.makedev(1, 5))


def rows_xattr():
    for name in "user.x", "user.note":
        rows(OTHERS, E.EACCES, at, os.setxattr, "pub", name, b"1")
        rows(OTHERS, E.EACCES, at, os.removexattr, "pub", name)
        rows(OTHERS, E.EACCES, at, os.getxattr, "priv", name)
    for name in "trusted.x", "security.x", "security.selinux", "security.ima":
        rows(OTHERS, E.EPERM, at, os.setxattr, "open/mine" if name.startswith("trusted") else "rw", name, b"1")
        rows(OTHERS, E.EPERM, at, os.setxattr, "pub", name, b"1")
    rows(OTHERS, E.EPERM, at, os.removexattr, "pub", "trusted.note")
    rows(OTHERS, E.ENODATA, at, os.getxattr, "pub", "trusted.note")
    rows(OTHERS, E.EPERM, at, os.setxattr, "sticky", "user.x", b"1")
    rows(OTHERS, E.EPERM, at, os.setxattr, "fifo", "user.x", b"1")
    rows(OTHERS, E.EPERM, at, os.setxattr, "pub", "security.capability", struct.pack("<5I", 0x02000000, 1, 0, 0, 0))
    for name in "system.posix_acl_access", "system.posix_acl_default", "system.x":
        acl = struct.pack("<IHHIHHIHHI", 2, 1, 7, 0, 4, 7, 0, 32, 7, 0)
        rows(ROOT, E.EOPNOTSUPP, at, os.setxattr, "open", name, acl)
        if name != "system.x":
            rows(OTHERS, E.EPERM, at, os.setxattr, "open", name, acl)
    rows(MALLORY, E.EOPNOTSUPP, at, os.setxattr, "open/mine", "nonsense", b"1")
    rows(MALLORY, E.E2BIG, at, os.setxattr, "open/mine", "user.big", bytes(65537))
    rows(MALLORY, 0, at, os.setxattr, "open/mine", "user.mine", b"1")
    rows(MALLORY, 0, at, os.getxattr, "pub", "user.note", quiet=True)
    rows(OWNER, 0, at, os.setxattr, "priv", "user.x", b"1")
    rows(OWNER, E.EPERM, at, os.setxattr, "priv", "trusted.x", b"1")
    rows(ROOT, 0, at, os.setxattr, "priv", "trusted.x", b"1")
    rows(ROOT, 0, at, os.setxattr, "priv", "security.x", b"1")


def rows_magic_file():
    """The magic file as a file."""
    for dir in "open", "sticky":
        name = dir + "/.clone"
        rows(MALLORY, E.EPERM, at, os.chmod, name, 0o777)
        rows(MALLORY, E.EPERM, at, os.chown, name, 2001, 2001)
        rows(MALLORY, E.EPERM, at, os.unlink, name)
        rows(MALLORY, E.EPERM, rename, name, "open/x")
        rows(MALLORY, E.EPERM, rename, "open/mine", name)
        rows(MALLORY, E.EEXIST, link, "open/mine", name)
        rows(MALLORY, E.EEXIST, at, os.mkdir, name)
        rows(MALLORY, E.EEXIST, symlink, "pub", name)
        rows(MALLORY, E.EEXIST, open_as, name, W | os.O_CREAT | os.O_EXCL)
        rows(MALLORY, E.EOPNOTSUPP, at, os.setxattr, name, "user.x", b"1")
        rows(MALLORY, E.ENOTDIR, open_as, name + "/x", R)
        rows(MALLORY, E.EACCES, at, os.execv, name, ["x"])
        rows(MALLORY, E.EOPNOTSUPP, on_fd, name, RW, fallocate, 0, 0, 4096)
        rows(MALLORY, 0, at, os.truncate, name, 0, quiet=True)
        rows(MALLORY, 0, open_as, name, W | os.O_CREAT | os.O_TRUNC, quiet=True)
    for way in magic, clone:
        rows(ROOT, 0, way, "pub", "open/by-root-" + way.__name__)
    for dir in "secret", "list":
        rows(OTHERS, E.EACCES, open_as, dir + "/.clone", W)
        rows(OTHERS, E.EACCES, at, os.stat, dir + "/.clone")


def rows_set_id():
    """Set-user-id and set-group-id go with every change by somebody else than root, and never come along with a clone."""
    whole = b"z" * 4096

    def changed(who, what, *args, was=0o6777, want=0o777, uid=2000, gid=STAFF):
        name = "open/set-id"

        def before():
            make(name, was, uid, gid, 8192)

        rows(who, 0, what, name, *args, before=before, after=(name, want, *((uid, gid) if what != chown_group else (uid, args[0]))))

    for who in MALLORY, MEMBER, OWNER:
        changed(who, write_to, b"x", W)
        changed(who, write_to, whole, W | os.O_DIRECT)
        changed(who, write_to, b"x", W | os.O_TRUNC)
        changed(who, write_to, b"x", W | os.O_APPEND)
        changed(who, write_to, b"x", W | os.O_DSYNC, was=0o4777)
        changed(who, write_to, b"x", W, was=0o2777)
        changed(who, truncate, 100)
        changed(who, allocate, 0, 16384)
        changed(who, allocate, KEEP, 16384)
        changed(who, allocate, PUNCH | KEEP, 4096)
        changed(who, allocate, ZERO, 4096)
        changed(who, copy_into)
        changed(who, copy_into, 100)
        changed(who, range_into)
    changed(OWNER, chown_group, 2000)
    changed(MEMBER, chown_group, STAFF, uid=2002, gid=2002)
    changed(ROOT, write_to, b"x", W, want=0o6777)
    changed(ROOT, allocate, PUNCH | KEEP, 4096, want=0o6777)
    changed(ROOT, copy_into, want=0o6777)

    for who in MALLORY, OWNER, ROOT:
        uid, gid, _ = USERS[who]
        for way in clone, magic, clone_own:
            name = next(NEW)
            rows(who, 0, way, "open/both", name, after=(name, 0o755, uid, gid))
        name = next(NEW)
        rows(who, 0, clone_many, "open/both", name, after=(name + "7", 0o755, uid, gid))
        name = next(NEW)
        rows(who, 0, copy_to_new, "open/both", name, after=(name, 0o640, uid, gid))
        name = next(NEW)
        rows(who, 0, range_to_new, "open/both", name, after=(name, 0o640, uid, gid))
    # A directory with set-group-id gives its group, not its bits.
    for way in clone, magic, clone_own, clone_many:
        name = "group/set-id-" + way.__name__
        rows(MEMBER, 0, way, "open/both", name, after=(name + "7" * (way == clone_many), 0o755, 2002, STAFF))
    rows(MALLORY, 0, at, os.mkdir, "open/plain", after=("open/plain", 0o755, 2001, 2001))
    rows(MEMBER, 0, at, os.mkdir, "group/inner", after=("group/inner", 0o2755, 2002, STAFF))
    rows(MALLORY, 0, chmod_own, "open/mine", 0o2755, before=lambda: os.chown(path("open/mine"), 2001, STAFF),
         after=("open/mine", 0o755, 2001, STAFF))


def write_to(name, data, flags):
    buf = mmap.mmap(-1, 4096)  # aligned for O_DIRECT
    buf.write(data)
    os.write(os.open(path(name), flags), memoryview(buf)[:len(data)])


def truncate(name, size):
    os.truncate(path(name), size)


def allocate(name, mode, length):
    fallocate(os.open(path(name), RW), mode, 0, length)


def copy_into(name, length=4096):
    os.copy_file_range(os.open(path("rw"), R), os.open(path(name), W), length)


def range_into(name):
    range_open("pub", name)


def chown_group(name, gid):
    os.chown(path(name), -1, gid)


def chmod_own(name, mode):
    os.chmod(path(name), mode)


def copy_to_new(src, dst):
    os.copy_file_range(os.open(path(src), R), os.open(path(dst), W | os.O_CREAT, 0o640), 8192)


def range_to_new(src, dst):
    keep = os.open(path(src), R)
    open_as(dst, W | os.O_CREAT, 0o640)
    range_of(os.fstat(keep).st_ino, dst)


# ---- running them ----

def become(who):
    uid, gid, groups = USERS[who]
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def open_as_user(who, name, flags):
    """A descriptor that `who` opened, in this process."""
    uid, gid, groups = USERS[who]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return os.open(path(name), flags)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def in_child(row, fds):
    """The exit status is the errno, 0 for success, 255 when the test itself is wrong."""
    try:
        become(row.who)
        row.what(*fds, *row.args)
        os._exit(0)
    except OSError as e:
        os._exit(e.errno)
    except BaseException:
        traceback.print_exc()
        os._exit(255)


def run(row):
    fds = [open_as_user(*f) for f in row.inherit or ()]
    pid = os.fork()
    if pid == 0:
        in_child(row, fds)
    for fd in fds:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def text_of(number):
    return "success" if number == 0 else errno.errorcode.get(number, str(number))


def differences(a, b):
    return [f"  {k}: {a.get(k)} -> {b.get(k)}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]


class Watch:
    """Whether rows that must change nothing did: the number of the last record is looked at after each, all the rest after several, and
    before anybody changes something."""
    SEVERAL = 12

    def __init__(self):
        self.changed()

    def changed(self):
        """What is there is somebody's right to change, and was."""
        self.since, self.rows = None, []

    def before(self):
        """Before a row that may change nothing."""
        if self.since is None:
            self.since, self.figures = snapshot(), figures()

    def unchanged(self, row, wrong):
        """After a row that may change nothing."""
        self.rows.append(row)
        now = figures()
        if now != self.figures:
            wrong.append("\n".join([f"{row}: has changed something:"] + differences({**self.since, **self.figures}, {**snapshot(), **now})))
            self.changed()
        elif len(self.rows) >= self.SEVERAL:
            self.look(wrong)

    def look(self, wrong):
        if not self.rows:
            return
        now = snapshot()
        if now != self.since:
            wrong.append("\n".join(["one of these has changed something:"] + [f"  {row}" for row in self.rows] + differences(self.since, now)))
        self.since, self.rows = now, []


def run_all(table):
    """Returns the list of what went wrong."""
    wrong = []
    watch = Watch()
    for row in table:
        refused = row.want or row.quiet
        if row.before or not refused:
            watch.look(wrong)
        if row.before:
            row.before()
            watch.changed()
        if refused:
            watch.before()
        else:
            record = figures()["last record"]
        got = run(row)
        if got != row.want:
            wrong.append(f"{row}: {text_of(got)} instead of {text_of(row.want)}")
        elif refused:
            watch.unchanged(row, wrong)
            continue
        elif figures()["last record"] == record:
            wrong.append(f"{row}: works without having done anything")
        elif row.after:
            name, *wanted = row.after
            st = os.stat(path(name))
            if [stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid] != wanted:
                wrong.append(f"{row}: {name} is {st.st_mode:o} {st.st_uid}:{st.st_gid} instead of {wanted[0]:o} {wanted[1]}:{wanted[2]}")
        watch.changed()
    watch.look(wrong)
    return wrong


GROUPS = (rows_clone, rows_range, rows_descriptors, rows_malformed, rows_files, rows_names, rows_xattr, rows_magic_file, rows_set_id)
LEAST = 300

os.umask(0o022)
build()
INO = {name: os.stat(path(name)).st_ino for name in DATA}
failed = 0
for group in GROUPS:
    first = len(ROWS)
    group()
    wrong = run_all(ROWS[first:])
    refused = sum(row.want != 0 for row in ROWS[first:])
    print(f"{group.__name__}: {len(ROWS) - first} rows, {refused} refused, {len(ROWS) - first - refused} controls, {len(wrong)} wrong")
    print("".join(text + "\n" for text in wrong), end="", flush=True)
    failed += len(wrong)
refused = sum(row.want != 0 for row in ROWS)
print(f"{len(ROWS)} rows: {refused} refused without effect, {len(ROWS) - refused} controls, {failed} wrong")
check(refused >= LEAST, f"only {refused} refusals")
check(not failed, "see above")
