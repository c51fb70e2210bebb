#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Another user on the mount: the usual permissions hold for every way to clone, also where the kernel does not check.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

command -v setpriv >/dev/null || skip "no setpriv"
setup_pool
mount_pool
export MNT

# as UID GROUPS COMMAND...: of the system; py: what follows "python3", with the rights dropped inside (which needs no
# access to interpreter and sources).
as() {
	local uid=$1 groups=$2
	shift 2
	setpriv --reuid="$uid" --regid="$uid" --groups="$groups" -- "$@"
}

py() {
	RUN_UID=$1 RUN_GROUPS=$2 python3 -c '
import os, sys
import vctest
uid = int(os.environ["RUN_UID"])
with (open(sys.argv[1]) if sys.argv[1] != "-" else sys.stdin) as f:
    code = compile(f.read(), sys.argv[1], "exec")
os.setgroups([int(g) for g in os.environ["RUN_GROUPS"].split(",")])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
del sys.argv[0]
exec(code)' "${@:3}"
}

cat >"$TEST_DIR/try.py" <<'END'
# try.py WAY SRC DST: clone in one way; the exit status is the errno.
from vctest import *

way, src, dst = sys.argv[1:]
try:
    if way == "ioctl":
        ioctl(".", CLONE, clone_arg(src, dst))
    elif way == "many":
        ioctl(".", CLONE_MANY, clone_many_arg(src, dst + "%d", 0, 2))
    elif way == "magic":
        fd = os.open(path(".clone"), os.O_WRONLY)
        os.write(fd, f"{src} {dst}\n".encode())
    elif way == "range":
        source = os.open(path(src), os.O_RDONLY)
        ioctl(dst, CLONE_RANGE, range_arg(os.fstat(source).st_ino), os.O_RDWR)
    elif way == "guess":
        ioctl(dst, CLONE_RANGE, range_arg(int(src)), os.O_RDWR)
    elif way == "own":
        ioctl(src, CLONE, clone_arg("", "/" + dst))
    elif way == "task":
        ioctl(".", int(src), task_arg(0))
except OSError as e:
    print(f"{' '.join(sys.argv[1:])}: {errno.errorcode[e.errno]}", file=sys.stderr)
    sys.exit(e.errno)
END
try() {
	python3 "$TEST_DIR/try.py" "$@" 2>>"$TEST_DIR/errors"
}
EACCES=13 EBADF=9

# What `nobody` (65534) may and what not; 500 is a group.
cd "$MNT"
mkdir open closed search grouped
chmod 777 . open
chmod 700 closed
chmod 711 search
chgrp 500 grouped
chmod 770 grouped
head -c 100000 /dev/urandom >public
cp public private
cp public closed/inside
cp public search/inside
cp public group-image
chmod 644 public closed/inside search/inside
chmod 600 private
chgrp 500 group-image
chmod 640 group-image
cd /

for way in ioctl many magic; do
	want 0 py 65534 65534 "$TEST_DIR/try.py" $way public open/of-$way
	want 0 py 65534 65534 "$TEST_DIR/try.py" $way search/inside open/searched-$way
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way private open/x 2>/dev/null
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way closed/inside open/x 2>/dev/null
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way public closed/x 2>/dev/null
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way public search/x 2>/dev/null
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way group-image open/x 2>/dev/null
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" $way public grouped/x 2>/dev/null
	# By a supplementary group.
	want 0 py 65534 65534,500 "$TEST_DIR/try.py" $way group-image grouped/by-group-$way
	want 0 try $way private closed/root-$way
done
[ "$(find "$MNT" -name 'x*' | wc -l)" -eq 0 ] || fail "a refused clone was made: $(find "$MNT" -name 'x*')"
for file in open/of-ioctl open/of-many0 open/of-many1 open/of-magic open/searched-magic grouped/by-group-ioctl \
	grouped/by-group-many1 closed/root-magic closed/root-many1; do
	cmp "$MNT/public" "$MNT/$file" || fail "$file differs"
done
[ "$(stat -c '%u:%g %a' "$MNT/open/of-ioctl")" = "65534:65534 644" ] || fail "owner of a clone: $(stat "$MNT/open/of-ioctl")"
[ "$(stat -c '%u:%g %a' "$MNT/closed/root-magic")" = "0:0 600" ] || fail "owner of root's clone"

# Ranges: the source must be readable and open, the destination open for writing.
public=$(stat -c %i "$MNT/public") private=$(stat -c %i "$MNT/private")
as 65534 65534 sh -c ": >'$MNT/open/mine'"
for source in $private $public $(stat -c %i "$MNT/closed/inside"); do
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" guess "$source" open/mine 2>/dev/null
done
[ ! -s "$MNT/open/mine" ] || fail "nobody has read an image he cannot open"
want 0 py 65534 65534 "$TEST_DIR/try.py" range public open/mine
cmp "$MNT/public" "$MNT/open/mine" || fail "range clone differs"

# The descriptor's own image, by whoever could open it.
want 0 py 65534 65534 "$TEST_DIR/try.py" own public open/own
want $EACCES py 65534 65534 "$TEST_DIR/try.py" own public closed/own 2>/dev/null

# Tasks: root or the owner of the root directory.
for number in $((0xC0605685)) $((0xC0605686)); do
	want $EACCES py 65534 65534 "$TEST_DIR/try.py" task $number x 2>/dev/null
	want 0 try task $number x
done
chown 65534 "$MNT"
want 0 py 65534 65534 "$TEST_DIR/try.py" task $((0xC0605685)) x

# The kernel's own checks are on.
want 1 as 65534 65534 cat "$MNT/private" 2>/dev/null >&2
want 1 as 65534 65534 rm -f "$MNT/closed/inside" 2>/dev/null
py 65534 65534 - <<'END' || fail "checks of the kernel"
from vctest import *
raises(errno.EACCES, os.open, path("public"), os.O_RDWR)
raises(errno.EPERM, os.chmod, path("public"), 0o777)
raises(errno.EPERM, os.setxattr, path("open/mine"), "trusted.x", b"1")
os.setxattr(path("open/mine"), "user.x", b"1")
END
python3 -c 'from vctest import *; os.setxattr(path("open/mine"), "trusted.hidden", b"1")'
py 65534 65534 - <<<'from vctest import *; same(os.listxattr(path("open/mine")), ["user.x"], "attributes")' ||
	fail "trusted attributes are shown to everybody"

# Writing, truncating and changing the owner drop set-user-id; root's writing does not.
cp "$MNT/public" "$MNT/open/suid"
chown 65534:65534 "$MNT/open/suid"
chmod 6755 "$MNT/open/suid"
printf x | dd of="$MNT/open/suid" conv=notrunc status=none
[ "$(stat -c %a "$MNT/open/suid")" = 6755 ] || fail "root's write changed the mode: $(stat -c %a "$MNT/open/suid")"
printf x | as 65534 65534 dd of="$MNT/open/suid" conv=notrunc status=none
[ "$(stat -c %a "$MNT/open/suid")" = 755 ] || fail "a write keeps set-user-id: $(stat -c %a "$MNT/open/suid")"
chmod 4755 "$MNT/open/suid"
head -c 4096 /dev/zero | as 65534 65534 dd of="$MNT/open/suid" bs=4096 oflag=direct conv=notrunc status=none
[ "$(stat -c %a "$MNT/open/suid")" = 755 ] || fail "a direct write keeps set-user-id: $(stat -c %a "$MNT/open/suid")"
chmod 4755 "$MNT/open/suid"
as 65534 65534 truncate -s 100 "$MNT/open/suid"
[ "$(stat -c %a "$MNT/open/suid")" = 755 ] || fail "truncating keeps set-user-id: $(stat -c %a "$MNT/open/suid")"
chmod 4755 "$MNT/open/suid"
chown 1 "$MNT/open/suid"
[ "$(stat -c %a "$MNT/open/suid")" = 755 ] || fail "chown keeps set-user-id: $(stat -c %a "$MNT/open/suid")"

remount_pool
cmp "$MNT/public" "$MNT/open/of-magic" || fail "after mounting again"
unmount_pool
