#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A pool in which others could have planted something is refused before anything of it is used, with a message that says what to do; names
# with control characters do nothing to a terminal or a journal.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

command -v setpriv >/dev/null || skip "no setpriv"
umask 000 # what is made must be private all the same
POOL_OPTIONS="--log-size 4M --log-segment 1M --segment 1M"
setup_pool
finish() {
	local status=$?
	set +e
	umount -l "$TEST_DIR/bound" 2>/dev/null
	(exit $status) # what cleanup ends with
	cleanup
}
trap finish EXIT
mount_pool
umask 022
echo data >"$MNT/image"
timeout 60 "$VCLONE" destage "$MNT" >/dev/null
unmount_pool

# Directories for their owner, files for their owner, whatever the umask.
open_to_others=$(find "$POOL" \( -type d ! -perm 700 -o -type f ! -perm 600 \) -printf '%m %P\n')
[ -z "$open_to_others" ] || fail "in the pool, for others: $open_to_others"
state() {
	find "$POOL" "$TEST_DIR/elsewhere" -printf '%p %y %m %u %l\n' | sort
	find "$POOL" "$TEST_DIR/elsewhere" -type f -exec sha256sum {} + | sort
}
mkdir "$TEST_DIR/elsewhere"
cases=0

# refused WORDS COMMAND UNDO: after COMMAND neither the daemon nor a check takes the pool, with these words, and nothing has changed; after
# UNDO both do.
refused() {
	local words=$1 before
	cases=$((cases + 1))
	(cd "$POOL" && eval "$2")
	before=$(state)
	: >"$LOG"
	if try_mount_pool; then fail "mounted after: $2"; fi
	grep -q -- "$words" "$LOG" || fail "no '$words' after: $2"
	want 8 "$VCLONE" check "$POOL" >"$TEST_DIR/out" 2>&1
	grep -q -- "$words" "$TEST_DIR/out" || fail "check does not say '$words' after: $2: $(cat "$TEST_DIR/out")"
	[ "$(state)" = "$before" ] || fail "something has changed in the pool refused after: $2"
	(cd "$POOL" && eval "$3")
}
works() {
	mount_pool
	[ "$(cat "$MNT/image")" = data ] || fail "the pool has lost its image"
	unmount_pool
	want 0 "$VCLONE" check --data --log "$POOL" >/dev/null
}

for part in pool log chunk journal backup meta meta/data.mdb meta/lock.mdb lock; do
	refused "symbolic link" "mv $part ../elsewhere/part && ln -s \$PWD/../elsewhere/part $part" "rm $part && mv ../elsewhere/part $part"
	refused "belongs to user 65534" "chown 65534 $part" "chown 0 $part"
	refused "others than its owner may write" "chmod g+w $part" "chmod g-w $part"
	refused "others than its owner may write" "chmod o+w $part" "chmod o-w $part"
done
refused "belongs to user 65534" 'chown 65534 .' 'chown 0 .'
refused "others than its owner may write" 'chmod 1777 .' 'chmod 700 .'
refused "others than its owner may write" 'chmod 770 .' 'chmod 700 .'
works

# What a daemon opens later: a log or chunk file that is none.
segment=$(cd "$POOL" && ls chunk/*.seg | head -n 1)
log_file=$(cd "$POOL" && find log -type f | sort | head -n 1)
for file in "$segment" "$log_file"; do
	for kind in "ln -s ../../elsewhere/part" mkfifo "ln ../elsewhere/part" mkdir; do
		cases=$((cases + 1))
		(cd "$POOL" && mv "$file" ../elsewhere/part && { [ "$kind" != "ln ../elsewhere/part" ] || chmod 666 ../elsewhere/part; } && $kind "$file")
		before=$(sha256sum <"$TEST_DIR/elsewhere/part")
		: >"$LOG"
		if try_mount_pool ro; then
			cat "$MNT/image" >/dev/null 2>&1 && fail "read through $kind at $file"
			unmount_pool
		fi
		grep -qE "symbolic link|Too many levels|neither a file|others than its owner|Is a directory" "$LOG" || fail "no message about $kind at $file"
		[ "$(sha256sum <"$TEST_DIR/elsewhere/part")" = "$before" ] || fail "written through $kind at $file"
		(cd "$POOL" && rm -rf "$file" && mv ../elsewhere/part "$file" && chmod 600 "$file")
	done
done
works

# A log elsewhere is looked at in the same way.
mv "$POOL/log" "$TEST_DIR/elsewhere/log"
chmod 777 "$TEST_DIR/elsewhere/log"
: >"$LOG"
if try_mount_pool log="$TEST_DIR/elsewhere/log"; then fail "mounted with a log anybody may write"; fi
grep -q "others than its owner" "$LOG" || fail "no message about the log"
chmod 700 "$TEST_DIR/elsewhere/log"
mount_pool log="$TEST_DIR/elsewhere/log"
unmount_pool
mv "$TEST_DIR/elsewhere/log" "$POOL/log"

# The pool itself may be named by a link; a directory above in which others may exchange it is warned of.
ln -s "$POOL" "$TEST_DIR/name"
real=$POOL
POOL=$TEST_DIR/name
mount_pool
unmount_pool
POOL=$real
mkdir "$TEST_DIR/elsewhere/above"
mv "$POOL" "$TEST_DIR/elsewhere/above/pool"
POOL=$TEST_DIR/elsewhere/above/pool
for mode in 777 775; do
	chmod $mode "$TEST_DIR/elsewhere/above"
	: >"$LOG"
	mount_pool
	unmount_pool
	grep -q "warning: .*above: others may exchange" "$LOG" || fail "no warning of a directory above with mode $mode"
done
chmod 1777 "$TEST_DIR/elsewhere/above"
: >"$LOG"
mount_pool
unmount_pool
! grep -q "elsewhere/above: others" "$LOG" || fail "a warning of a sticky directory"
mv "$POOL" "$real"
POOL=$real

# Mount point and pool in each other, by whatever name.
mkdir "$TEST_DIR/bound" "$POOL/inside"
mount --bind "$TEST_DIR" "$TEST_DIR/bound"
for pair in "$POOL $POOL" "$POOL $POOL/inside" "$POOL $TEST_DIR" "$POOL $TEST_DIR/bound" "$POOL $TEST_DIR/bound/pool/inside" \
	"$TEST_DIR/bound/pool $POOL/log"; do
	cases=$((cases + 1))
	read -r pool point <<<"$pair"
	want 1 "$VCLONEFS" -f "$pool" "$point" 2>"$TEST_DIR/out"
	grep -q "must not contain each other" "$TEST_DIR/out" || fail "$pair: $(cat "$TEST_DIR/out")"
done
umount "$TEST_DIR/bound"
rmdir "$POOL/inside"

# init does not use a directory that others may write.
mkdir "$TEST_DIR/shared"
chmod 777 "$TEST_DIR/shared"
want 1 "$VCLONE" init "$TEST_DIR/shared" 2>"$TEST_DIR/out"
grep -q "others than its owner" "$TEST_DIR/out" || fail "init: $(cat "$TEST_DIR/out")"
[ -z "$(ls -A "$TEST_DIR/shared")" ] || fail "init has made something"

# Names: escape sequences, newlines, C1 controls, text direction, bytes that are not UTF-8; in what vclone and the daemon print.
mount_pool
export MNT VCLONE
python3 - "$LOG" <<'END' || fail "names"
import re
import subprocess
from vctest import *

evil = [b"a\x1b[2J\x1b]0;owned\x07", b"b\nerror: forged", b"c\r\x08\x7f", b"d\xc2\x9b31m", b"e\xe2\x80\xaetxt.exe", b"f\xff\xfe", b"g\x9bK"]
os.mkdir(path("dir"))
for i, name in enumerate(evil):
    with open(os.fsencode(path("dir")) + b"/" + name, "wb") as f:
        f.write(b"x" * 5000)
    ioctl("dir", CLONE, clone_arg(name, b"of-" + name))
sub = os.fsencode(path("dir")) + b"/\x1b[31mdir\n"
os.mkdir(sub)

bad = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]")


def clean(text, what, lines=None):
    check(not bad.search(text), f"{what}: {short(text)}")
    text.decode("utf-8")
    check(lines is None or text.count(b"\n") == lines, f"{what}: a name has made a line: {short(text)}")


def vclone(*args):
    r = subprocess.run([os.environ["VCLONE"], *args], capture_output=True, timeout=60)
    return r.stdout, r.stderr


dir = os.fsencode(path("dir"))
out, err = vclone("ls", dir)
clean(out + err, "ls", 1 + 2 * len(evil))
out, err = vclone("ls", "--json", dir)
clean(out + err, "ls --json")
same(out.count(b'"name"'), 2 * len(evil), "names of ls --json")
out, err = vclone("tree", dir)
clean(out + err, "tree", 1 + 2 * len(evil))
clean(b"".join(vclone("tree", "--json", dir)), "tree --json")
for name in evil:
    full = dir + b"/of-" + name
    for args in ("info", full), ("info", "--json", full), ("clone", full, full), ("clone", full, sub), ("clone", b"/" + name, full), \
            ("info", full + b"-missing"), ("import", full, full), ("ls", full + b"-missing"), ("df", full), ("destage", sub + b"-missing"):
        out, err = vclone(*args)
        check(out or err, f"{args}: nothing printed")
        clean(out + err, str(args))
END
# A pool and a mount point with such names.
unmount_pool
evil=$TEST_DIR/$'evil\e[2J\nerror: forged\xc2\x9b'
real=$POOL
mkdir "$evil"
mv "$POOL" "$evil/pool"
POOL=$evil/pool
: >"$LOG"
chmod 777 "$POOL/log"
if try_mount_pool; then fail "mounted"; fi
grep -q "others than its owner" "$LOG" || fail "no message"
! grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2\x9b' "$LOG" || fail "a control character in: $(cat -v "$LOG")"
[ "$(wc -l <"$LOG")" -eq 1 ] || fail "a name has made a line: $(cat -v "$LOG")"
want 8 "$VCLONE" check "$POOL" >"$TEST_DIR/out" 2>&1
! grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2\x9b' "$TEST_DIR/out" || fail "a control character in: $(cat -v "$TEST_DIR/out")"
chmod 700 "$POOL/log"
mount_pool
unmount_pool
mv "$POOL" "$real"
POOL=$real
echo "$cases pools and mount points refused"
