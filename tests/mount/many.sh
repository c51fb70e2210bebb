#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# 10,000 clones in one batch: made quickly, listed and stat'ed stably, mounted again quickly, also after a kill; when they are deleted, what
# they needed comes back (D6). Prints times and the daemon's memory.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

COUNT=10000
WRITTEN=300 # of them get data of their own
POOL_OPTIONS='--log-size 64M --segment 4M'
setup_pool
setup_load
setup_seed
export MNT COUNT WRITTEN

show() { printf '%-44s %s\n' "$1" "$2"; }

# Listing, inode numbers and sizes must be the same whenever they are looked at, but for what a daemon may forget: nothing.
list_names() { ls -f "$MNT/many"; }
list_inodes() {
	python3 -c '
import os, sys
with os.scandir(sys.argv[1]) as it:
    for e in sorted(it, key=lambda e: e.name):
        st = e.stat()
        assert st.st_ino == e.inode(), e.name
        print(e.name, st.st_ino, st.st_size, st.st_nlink, oct(st.st_mode))' "$MNT/many"
}
check_lists() {
	took_ms list_names >"$TEST_DIR/names.now"
	show "  ls -f, $1" "$ms ms"
	took_ms list_inodes >"$TEST_DIR/inodes.now"
	show "  stat of each, $1" "$ms ms"
	cmp "$TEST_DIR/names" "$TEST_DIR/names.now" || fail "$1: ls -f shows something else"
	cmp "$TEST_DIR/inodes" "$TEST_DIR/inodes.now" || fail "$1: stat shows something else"
}

mount_pool destage_ms=never
python3 -c '
import random, sys
r = random.Random(3)
with open(sys.argv[1], "wb") as f:
    for i in range(64):
        f.write(r.randbytes(500000) + bytes(548576))' "$TEST_DIR/model"
cp "$TEST_DIR/model" "$MNT/golden"
mkdir "$MNT/many"
destage_pool
clean_pool
before=$(pool_kib)
show "pool with the golden image" "$((before / 1024)) MiB"
show "daemon" "$(($(daemon_rss) / 1024)) MiB"

took_ms in_time 60 "$VCLONE" clone -n $COUNT "$MNT/golden" "$MNT/many/vm%05d.img"
show "$COUNT clones in one batch" "$ms ms"
list_names >"$TEST_DIR/names"
list_inodes >"$TEST_DIR/inodes"
[ "$(wc -l <"$TEST_DIR/inodes")" -eq $COUNT ] || fail "$(wc -l <"$TEST_DIR/inodes") of $COUNT clones are there"
[ "$(sort -u -k2,2 "$TEST_DIR/inodes" | wc -l)" -eq $COUNT ] || fail "inode numbers are used twice"
[ "$(sort "$TEST_DIR/names" | uniq -d | wc -l)" -eq 0 ] || fail "ls -f lists names twice"
[ "$(wc -l <"$TEST_DIR/names")" -eq $((COUNT + 2)) ] || fail "ls -f lists $(wc -l <"$TEST_DIR/names") names"
check_lists "at once"
show "daemon" "$(($(daemon_rss) / 1024)) MiB"

crash_pool
took_ms mount_pool destage_ms=never
show "mounted after a kill" "$ms ms"
check_lists "after a kill"
took_ms destage_pool
show "destage" "$ms ms"
took_ms remount_pool
show "unmounted and mounted" "$ms ms"
check_lists "after a clean end"

# Some are written to; neighbours stay as they were.
python3 - <<'END2' || fail "writing to clones"
from vctest import *

rng = seeded()
count = int(os.environ["COUNT"])
model = read("golden")
chosen = rng.sample(range(count), int(os.environ["WRITTEN"]))
for n in chosen:
    with open(path(f"many/vm{n:05d}.img"), "r+b") as f:
        f.seek(n * 4096)
        f.write(rng.randbytes(200000))
for n in rng.sample(sorted(set(range(count)) - set(chosen)), 5) + [chosen[0] + 1 if chosen[0] + 1 not in chosen else 0]:
    if n not in chosen:
        check(read(f"many/vm{n:05d}.img") == model, f"clone {n} has changed though nobody wrote to it")
END2
took_ms in_time 60 "$VCLONE" ls "$MNT/many" >"$TEST_DIR/out"
show "vclone ls" "$ms ms"
[ "$(wc -l <"$TEST_DIR/out")" -ge $COUNT ] || fail "vclone ls: $(wc -l <"$TEST_DIR/out") lines"
took_ms in_time 60 "$VCLONE" tree "$MNT" >"$TEST_DIR/out"
show "vclone tree" "$ms ms"
destage_pool
took_ms clean_pool
show "clean" "$ms ms"
show "pool with 58 MiB written to $WRITTEN clones" "$(($(pool_kib) / 1024)) MiB"
cmp "$TEST_DIR/model" "$MNT/golden" || fail "the golden image has changed"

took_ms in_time 60 rm -r "$MNT/many"
show "all deleted" "$ms ms"
[ "$(ls "$MNT")" = golden ] || fail "left: $(ls "$MNT" | head)"
destage_pool
took_ms clean_pool
show "clean" "$ms ms"
after=$(pool_kib)
show "pool now" "$((after / 1024)) MiB"
show "daemon" "$(($(daemon_rss) / 1024)) MiB"
# The map file does not shrink, and what it grew to is for reuse: so chunks are compared closely, all of it loosely.
[ "$after" -le $((before * 5 / 4 + 32768)) ] || fail "space does not come back: $before KiB before, $after KiB after"
cmp "$TEST_DIR/model" "$MNT/golden" || fail "the golden image has changed"
# And again, in the place of the first.
mkdir "$MNT/many"
in_time 60 "$VCLONE" clone -n $COUNT "$MNT/golden" "$MNT/many/vm%05d.img"
in_time 60 rm -r "$MNT/many"
destage_pool
clean_pool
again=$(pool_kib)
show "pool after another batch and its removal" "$((again / 1024)) MiB"
[ "$again" -le $((after + 8192)) ] || fail "each batch leaves something: $after KiB, then $again KiB"
remount_pool
cmp "$TEST_DIR/model" "$MNT/golden" || fail "the golden image has changed"
unmount_pool
