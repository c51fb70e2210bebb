#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# vclone scrub on a mount: bits are flipped on the disk below it, and exactly the images and offsets that are hit are listed; it is
# stopped, goes on, and goes on after the daemon was killed; who may not is refused.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

POOL_OPTIONS='--log-size 16M --log-segment 1M --segment 1M'
setup_pool
setup_load

scrub() { "$VCLONE" scrub "$@"; }
# status WANT COMMAND...
status() {
	local want=$1 got=0

	shift
	"$@" >"$TEST_DIR/out" 2>&1 || got=$?
	[ $got -eq "$want" ] || fail "$*: status $got instead of $want: $(cat "$TEST_DIR/out")"
}
# damage OFFSET: a bit of what file2 holds there, in the only chunk file that has it.
damage() {
	python3 - "$TEST_DIR/file2" "$1" "$POOL"/chunk/*.seg <<'END'
import sys

with open(sys.argv[1], "rb") as f:
    f.seek(int(sys.argv[2]))
    want = f.read(512)
hits = 0
for path in sys.argv[3:]:
    with open(path, "r+b") as f:
        at = f.read().find(want)
        if at >= 0:
            hits += 1
            f.seek(at)
            f.write(bytes([want[0] ^ 16]))
sys.exit(hits != 1)
END
}

mount_pool destage_ms=never
for i in 1 2 3; do
	head -c 6000000 /dev/urandom >"$TEST_DIR/file$i"
	cp "$TEST_DIR/file$i" "$MNT/file$i"
done
mkdir "$MNT/dir"
"$VCLONE" clone "$MNT/file2" "$MNT/dir/clone"
"$VCLONE" destage "$MNT"
status 0 scrub --status "$MNT"
grep -q 'never run' "$TEST_DIR/out" || fail "status before the first: $(cat "$TEST_DIR/out")"
status 0 scrub "$MNT"
grep -q ' 0 things damaged' "$TEST_DIR/out" || fail "undamaged: $(cat "$TEST_DIR/out")"

damage 1048576 || fail "no chunk to damage"
status 4 scrub "$MNT"
grep -q "^$MNT/file2: offset 1048576, [0-9]* bytes: chunk damaged in chunk/0" "$TEST_DIR/out" || fail "the original: $(cat "$TEST_DIR/out")"
grep -q "^$MNT/dir/clone: offset 1048576, " "$TEST_DIR/out" || fail "the clone: $(cat "$TEST_DIR/out")"
[ "$(grep -c damaged\ in "$TEST_DIR/out")" -eq 2 ] || fail "others are listed: $(cat "$TEST_DIR/out")"
status 4 scrub --status --json "$MNT"
python3 - "$TEST_DIR/out" "$MNT" <<'END' || fail "json: $(cat "$TEST_DIR/out")"
import json, sys

r = json.load(open(sys.argv[1]))
assert r["found"] == 2 and not r["running"] and r["done"] > 17000000, r
assert {d["image"] for d in r["damaged"]} == {sys.argv[2] + "/file2", sys.argv[2] + "/dir/clone"}, r
assert all(d["offset"] == 1048576 and d["kind"] == "chunk" for d in r["damaged"]), r
END

# Slow, stopped, killed, gone on with.
status 0 scrub --background --restart --rate 2 "$MNT"
status 0 scrub --status "$MNT"
grep -q '^running' "$TEST_DIR/out" || fail "not running: $(cat "$TEST_DIR/out")"
status 0 scrub --stop "$MNT"
grep -q '^stopped' "$TEST_DIR/out" || fail "not stopped: $(cat "$TEST_DIR/out")"
status 0 scrub --background --rate 2 "$MNT"
crash_pool
mount_pool destage_ms=never
status 0 scrub --status "$MNT"
grep -q '^running' "$TEST_DIR/out" || fail "does not go on: $(cat "$TEST_DIR/out")"
status 4 scrub --rate 0 "$MNT"
[ "$(grep -c damaged\ in "$TEST_DIR/out")" -eq 2 ] || fail "after going on: $(cat "$TEST_DIR/out")"

status 2 scrub --rate x "$MNT"
status 2 scrub --stop --rate 3 "$MNT"
status 1 scrub "$TEST_DIR"
cmp "$MNT/file1" "$TEST_DIR/file1" || fail "file1"
unmount_pool
