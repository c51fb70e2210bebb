#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A pool that has lost its LMDB does not mount; vclone check --rebuild makes it again from the journal and the log, and everything is
# there: contents, clones, names, attributes. --repair on pools in order and in use; exit statuses; JSON; the golden pools.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/load.bash"

POOL_OPTIONS='--log-size 8M --log-segment 1M --segment 1M'
setup_pool
out=$TEST_DIR/out

run() {
	local want=$1 got=0
	shift
	"$@" >"$out" 2>&1 || got=$?
	[ $got -eq "$want" ] || fail "status $got instead of $want: $*
$(cat "$out")"
}
says() { grep -Eq -- "$1" "$out" || fail "no '$1' in: $(cat "$out")"; }
value() { python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$out" "$1"; }
is() { [ "$1" = "$2" ] || fail "'$1' instead of '$2'"; }

# Everything that can be seen from outside, but for times of access.
describe() {
	(
		cd "$1"
		find . -mindepth 1 -printf '%P %y %i %m %n %U %G %s %T@ %l\n' | sort
		find . -type f -print0 | sort -z | xargs -0 sha256sum
		find . -type f -print0 | sort -z | xargs -0 getfattr -d -m . 2>/dev/null
	)
}

fill() {
	local i

	mkdir "$MNT/dir$1" "$MNT/dir$1/deep"
	for i in 1 2 3; do
		head -c $((300000 * i)) /dev/urandom >"$MNT/dir$1/file$i"
	done
	"$VCLONE" clone "$MNT/dir$1/file3" "$MNT/dir$1/clone"
	head -c 5000 /dev/urandom | dd of="$MNT/dir$1/clone" bs=5000 seek=7 conv=notrunc status=none
	"$VCLONE" clone "$MNT/dir$1/clone" "$MNT/dir$1/deep/clone of clone"
	truncate -s 64M "$MNT/dir$1/sparse"
	ln -s "file1" "$MNT/dir$1/link"
	ln "$MNT/dir$1/file2" "$MNT/dir$1/deep/hard"
	setfattr -n user.note -v "number $1" "$MNT/dir$1/file1"
	chmod 640 "$MNT/dir$1/file1"
}

mount_pool destage_ms=50
fill 1
timeout 60 "$VCLONE" destage "$MNT" >/dev/null
fill 2
rm -r "$MNT/dir1/file3"
truncate -s 100000 "$MNT/dir2/file2"
timeout 60 "$VCLONE" destage "$MNT" >/dev/null
fill 3
cp "$MNT/dir1/file1" "$TEST_DIR/keep"
describe "$MNT" >"$TEST_DIR/before"
run 8 "$VCLONE" check --rebuild "$POOL"
says 'in use'
run 8 "$VCLONE" check --repair "$POOL"
says 'in use'
run 0 "$VCLONE" check "$POOL"
says 'log was not looked at: the pool is in use'
run 8 "$VCLONE" check --log "$POOL"
crash_pool
cp -a "$POOL" "$TEST_DIR/whole"

# lost WHAT COMMAND...: after it the pool does not mount as it was; rebuilt, it is equal.
lost() {
	local what=$1

	shift
	rm -rf "$POOL"
	cp -a "$TEST_DIR/whole" "$POOL"
	"$@"
	run 1 "$VCLONE" check --rebuild --data "$POOL"
	says 'the pool is clean'
	mount_pool
	describe "$MNT" >"$TEST_DIR/after"
	cmp "$TEST_DIR/before" "$TEST_DIR/after" || fail "$what: $(diff "$TEST_DIR/before" "$TEST_DIR/after")"
	echo hello >"$MNT/new"
	unmount_pool
	run 0 "$VCLONE" check --data --log "$POOL"
	run 0 "$VCLONE" check --repair "$POOL"
}

lost "removed" rm "$POOL/meta/data.mdb"
lost "without its directory" rm -r "$POOL/meta"
lost "truncated" truncate -s 20000 "$POOL/meta/data.mdb"
lost "overwritten" dd if=/dev/urandom of="$POOL/meta/data.mdb" bs=4096 count=8 conv=notrunc status=none
[ -f "$POOL/backup/data.mdb.1" ] || fail "the old LMDB is not kept"

# Without a journal the log alone does not tell all: refused, and nothing is changed.
rm -rf "$POOL"
cp -a "$TEST_DIR/whole" "$POOL"
rm "$POOL/meta/data.mdb" "$POOL"/journal/*
run 8 "$VCLONE" check "$POOL"
says 'rebuild'
run 4 "$VCLONE" check --rebuild "$POOL"
says 'nothing was changed'
[ ! -e "$POOL/meta/data.mdb" ] || fail "a refused rebuild left an LMDB"

# The last resort: what chunks and log know, with a name or by number.
run 5 "$VCLONE" check --rebuild --salvage "$POOL"
says 'lost\+found'
run 0 "$VCLONE" check --data --log "$POOL"
mount_pool
kept=
for file in "$MNT"/lost+found/* "$MNT"/*/file*; do # sizes are known to the block
	[ -f "$file" ] && cmp -s -n "$(stat -c %s "$TEST_DIR/keep")" "$file" "$TEST_DIR/keep" && kept=$file
done
[ -n "$kept" ] || fail "a file that was not cloned is gone"
unmount_pool
run 0 "$VCLONE" check --data --log "$POOL"

# The log is looked at when it can be: a hole in it is found without --log, too.
rm -rf "$POOL"
cp -a "$TEST_DIR/whole" "$POOL"
mount_pool destage_ms=600000
for i in 1 2 3 4; do
	dd if=/dev/urandom of="$MNT/dir1/late" bs=4k count=1 seek=$i conv=notrunc,fsync status=none
done
crash_pool
run 0 "$VCLONE" check --json "$POOL"
is "$(value "j['log_checked']")" True
mv "$POOL/log" "$TEST_DIR/elsewhere"
run 4 "$VCLONE" check "$POOL"
says 'log was not looked at: it is not there'
run 0 "$VCLONE" check --log-dir "$TEST_DIR/elsewhere" "$POOL"
says 'the pool is clean'
for file in "$TEST_DIR"/elsewhere/*; do # the first batch of each segment
	dd if=/dev/zero of="$file" bs=4096 seek=1 count=1 conv=notrunc status=none
done
mv "$TEST_DIR/elsewhere" "$POOL/log"
run 4 "$VCLONE" check --data "$POOL"
says 'the log cannot be replayed'

# JSON, in all modes.
rm -rf "$POOL"
cp -a "$TEST_DIR/whole" "$POOL"
rm "$POOL/meta/data.mdb"
"$VCLONE" check --rebuild --json "$POOL" >"$out" && fail "exit status 0" || is $? 1
is "$(value "j['rebuilt'] and not j['salvaged'] and j['findings'] == [] and j['entries'] > 0")" True
"$VCLONE" check --repair --json "$POOL" >"$out" || fail "status $?"
is "$(value "j['repaired'] == 0 and j['left'] == [] and j['actions'] == []")" True
"$VCLONE" check --json "$POOL" >"$out" || fail "status $?"
is "$(value "j['errors']")" 0

# The command line.
run 16 "$VCLONE" check --repair --rebuild "$POOL"
run 16 "$VCLONE" check --salvage "$POOL"
run 16 "$VCLONE" check --repair --salvage "$POOL"
run 16 "$VCLONE" check --rebuild
run 16 "$VCLONE" check --repair "$POOL" "$POOL"
run 8 "$VCLONE" check --repair "$TEST_DIR"
[ ! -e "$TEST_DIR/lock" ] || fail "a file was made where there is no pool"

# Journals of format 1 were written before anything read them.
command -v xz >/dev/null || skip "no xz"
for archive in "$SRC_DIR"/tests/golden/format-*.tar.xz; do
	name=$(basename "$archive" .tar.xz)
	POOL=$TEST_DIR/$name/pool
	mkdir "$TEST_DIR/$name"
	tar -xJf "$archive" -C "$TEST_DIR/$name"
	rm "$POOL/meta/data.mdb"
	run 1 "$VCLONE" check --rebuild --data "$POOL"
	mount_pool
	(cd "$MNT" && sha256sum --quiet -c "$SRC_DIR/tests/golden/$name.sum") || fail "$name: other content after a rebuild"
	unmount_pool
	run 0 "$VCLONE" check --data --log "$POOL"
done
