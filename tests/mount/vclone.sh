#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Every subcommand of vclone on a mount: what it does, what it prints (also as JSON), how it fails.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

# run STATUS COMMAND...: the exit status must be that; both outputs go to $out.
run() {
	local want=$1 got=0
	shift
	"$@" >"$out" 2>&1 || got=$?
	[ $got -eq "$want" ] || fail "status $got instead of $want: $*
$(cat "$out")"
}

# says PATTERN: the last output contains this extended regular expression.
says() {
	grep -Eq -- "$1" "$out" || fail "no '$1' in: $(cat "$out")"
}

# json COMMAND...: its standard output is one JSON text; kept in $out.
json() {
	"$@" >"$out" || fail "failed: $*"
	python3 -m json.tool "$out" >/dev/null || fail "not JSON: $* printed $(cat "$out")"
}

# value EXPRESSION: of Python, with the last JSON text as j.
value() {
	python3 -c 'import json, os, sys; j = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$out" "$1"
}

is() {
	[ "$1" = "$2" ] || fail "'$1' instead of '$2'"
}

test_usage() {
	local cmd

	run 2 "$VCLONE"
	run 2 "$VCLONE" nonsense
	says nonsense
	run 0 "$VCLONE" --help
	run 0 "$VCLONE" --version
	says 'vclone \(vclonefs\) [0-9]+\.[0-9]+'
	run 0 "$VCLONE" version
	for cmd in clone ls tree info df import destage clean init version help; do
		run 0 "$VCLONE" "$cmd" --help
		says "^usage: vclone $cmd"
		run 0 "$VCLONE" help "$cmd"
		run 2 "$VCLONE" "$cmd" --no-such-option
		says no-such-option
	done
	run 1 sh -c "'$VCLONE' --help >/dev/full"
}

test_clone() {
	cd "$MNT"
	run 0 "$VCLONE" clone golden.img one.img
	cmp golden.img one.img || fail "one.img differs"
	run 0 "$VCLONE" clone one.img dir/two.img
	cmp golden.img dir/two.img || fail "dir/two.img differs"
	cd dir
	run 0 "$VCLONE" clone ../golden.img ../three.img
	run 0 "$VCLONE" clone "$MNT/golden.img" './with blank'
	cd /
	run 0 "$VCLONE" clone "$MNT/dir/../golden.img" "$MNT/dir/four.img"
	# Independent from then on.
	printf x | dd of="$MNT/one.img" bs=1 seek=5000 conv=notrunc status=none
	cmp -s "$MNT/golden.img" "$MNT/one.img" && fail "writing to the clone changed its source"
	cmp "$MNT/golden.img" "$MNT/dir/two.img" || fail "writing to the clone changed another"
	# By symbolic links, in the source and in the directory.
	ln -s "$MNT/dir" "$scratch/link"
	ln -s golden.img "$MNT/link.img"
	run 0 "$VCLONE" clone "$scratch/link/../golden.img" "$scratch/link/five.img"
	[ -f "$MNT/dir/five.img" ] || fail "no dir/five.img"
	run 0 "$VCLONE" clone "$MNT/link.img" "$MNT/six.img"
	cmp "$MNT/golden.img" "$MNT/six.img" || fail "six.img differs"
	# The mount seen from elsewhere: another mount point, and only a directory of it.
	mkdir "$scratch/bind"
	mount --bind "$MNT/dir" "$scratch/bind"
	mkdir "$MNT/dir/sub"
	run 0 "$VCLONE" clone "$MNT/golden.img" "$scratch/bind/sub/seven.img"
	umount "$scratch/bind"
	rmdir "$scratch/bind"
	[ -f "$MNT/dir/sub/seven.img" ] || fail "no dir/sub/seven.img"
}

# What a shared mapping changed and nobody synced is in the clone (D3).
test_clone_mmap() {
	cp "$MNT/golden.img" "$MNT/mapped.img"
	run 0 python3 - "$MNT/mapped.img" "$VCLONE" "$MNT/mapped-clone.img" <<-'END'
		import mmap, subprocess, sys
		with open(sys.argv[1], "r+b") as f:
		    m = mmap.mmap(f.fileno(), 0)
		    m[123456:123462] = b"MAPPED"
		    subprocess.run([sys.argv[2], "clone", sys.argv[1], sys.argv[3]], check=True)
		    with open(sys.argv[3], "rb") as c:
		        c.seek(123456)
		        assert c.read(6) == b"MAPPED", "the clone misses what the mapping changed"
	END
}

test_clone_errors() {
	cd "$MNT"
	run 1 "$VCLONE" clone golden.img one.img
	says 'File exists'
	run 1 "$VCLONE" clone missing.img new.img
	says 'missing.img: No such file'
	run 1 "$VCLONE" clone golden.img missing/new.img
	says "missing'?: No such file"
	run 1 "$VCLONE" clone golden.img golden.img/new.img
	says 'Not a directory'
	run 1 "$VCLONE" clone dir new.img
	says 'Is a directory'
	run 1 "$VCLONE" clone golden.img dir/
	says 'Is a directory'
	run 1 "$VCLONE" clone golden.img dir
	says 'File exists|Is a directory'
	run 1 "$VCLONE" clone golden.img "$scratch/new.img"
	says 'cross-device'
	[ ! -e "$scratch/new.img" ] || fail "a refused clone left a file"
	run 1 "$VCLONE" clone /etc/passwd new.img
	says '/etc/passwd is not on a vclonefs mount'
	run 1 "$VCLONE" clone golden.img "$(printf '%0300d' 0)"
	says 'File name too long'
	run 1 "$VCLONE" clone golden.img .clone
	mkfifo fifo
	run 1 "$VCLONE" clone fifo new.img
	run 2 "$VCLONE" clone golden.img
	run 2 "$VCLONE" clone a b c
	run 1 "$VCLONE" clone $'no\nsuch\033[2Jfile' new.img
	says 'no\\012such\\033\[2Jfile'
	rm fifo
	[ ! -e new.img ] || fail "a refused clone left a file"
	cd /
}

test_clone_many() {
	local i

	mkdir "$MNT/many"
	cd "$MNT/many"
	run 0 "$VCLONE" clone -n 100 -s 7 ../golden.img 'vm%05d.img'
	is "$(find . -name 'vm*.img' | wc -l)" 100
	for i in 00007 00050 00106; do
		cmp ../golden.img vm$i.img || fail "vm$i.img differs"
	done
	[ ! -e vm00006.img ] && [ ! -e vm00107.img ] || fail "numbers beyond the range"
	run 0 "$VCLONE" clone --count 2 --start 0 ../golden.img '100%%-%d'
	[ -f '100%-0' ] && [ -f '100%-1' ] || fail "no '100%-0': $(ls)"
	# All or nothing.
	touch half-5
	run 1 "$VCLONE" clone -n 10 ../golden.img 'half-%d'
	says 'File exists'
	is "$(find . -name 'half-*')" ./half-5
	run 0 "$VCLONE" clone -n 10000 ../golden.img 'bulk-%d'
	is "$(find . -name 'bulk-*' | wc -l)" 10000
	run 2 "$VCLONE" clone -n 10001 ../golden.img 'x-%d'
	run 2 "$VCLONE" clone -n 0 ../golden.img 'x-%d'
	run 2 "$VCLONE" clone -n -1 ../golden.img 'x-%d'
	run 2 "$VCLONE" clone -n 2 ../golden.img 'x'
	run 2 "$VCLONE" clone -n 2 ../golden.img 'x-%d-%d'
	run 2 "$VCLONE" clone -n 2 ../golden.img 'x-%s'
	run 2 "$VCLONE" clone -n 2 -s 4294967295 ../golden.img 'x-%d'
	run 2 "$VCLONE" clone -s 2 ../golden.img x
	is "$(find . -name 'x*')" ''
	cd /
	rm -r "$MNT/many"
}

test_import() {
	local pid got

	truncate -s 40M "$scratch/disk.raw"
	head -c 3000000 /dev/urandom | dd of="$scratch/disk.raw" bs=64k seek=100 conv=notrunc status=none
	truncate -s 39999999 "$scratch/disk.raw"
	run 0 "$VCLONE" import "$scratch/disk.raw" "$MNT/imported.img"
	says 'imported'
	json "$VCLONE" df --json "$MNT"
	is "$(value 'j["durable_lsn"] >= j["last_lsn"]')" True
	cmp "$scratch/disk.raw" "$MNT/imported.img" || fail "the import differs"
	run 0 python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
assert os.lseek(fd, 0, os.SEEK_DATA) == 6553600, os.lseek(fd, 0, os.SEEK_DATA)
assert os.lseek(fd, 20000000, os.SEEK_HOLE) == 20000000' "$MNT/imported.img"
	: >"$scratch/empty"
	run 0 "$VCLONE" import "$scratch/empty" "$MNT/empty.img"
	is "$(stat -c %s "$MNT/empty.img")" 0
	run 1 "$VCLONE" import "$scratch/disk.raw" "$MNT/imported.img"
	says 'File exists'
	cmp "$scratch/disk.raw" "$MNT/imported.img" || fail "a refused import changed the image"
	run 1 "$VCLONE" import "$scratch/missing" "$MNT/x.img"
	run 1 "$VCLONE" import "$scratch" "$MNT/x.img"
	says 'Is a directory'
	run 1 "$VCLONE" import "$scratch/disk.raw" "$scratch/x.img"
	says 'not on a vclonefs mount'
	run 1 "$VCLONE" import "$MNT/golden.img" "$MNT/x.img"
	says 'vclone clone'
	run 2 "$VCLONE" import "$scratch/disk.raw"
	# A signal ends it and the unfinished image goes. The source is large, so that it cannot be ready before.
	head -c 512M /dev/zero >"$scratch/large.raw"
	"$VCLONE" import "$scratch/large.raw" "$MNT/x.img" 2>"$out" >&2 &
	pid=$!
	until [ -e "$MNT/x.img" ] || ! kill -0 $pid 2>/dev/null; do :; done
	kill -TERM $pid 2>/dev/null || fail "the import ended before the signal: $(cat "$out")"
	got=0
	wait $pid || got=$?
	is $got 143
	[ ! -e "$MNT/x.img" ] || fail "an interrupted import left its image"
	rm "$scratch/large.raw"
}

test_reports() {
	local bad

	mkdir "$MNT/r"
	cd "$MNT/r"
	cp ../golden.img a.img
	sync a.img
	run 0 "$VCLONE" clone a.img b.img
	run 0 "$VCLONE" clone b.img c.img
	printf new | dd of=c.img bs=4096 seek=3 conv=notrunc status=none
	bad=$'evil\033[2J"\\\xff\n.img'
	run 0 "$VCLONE" clone a.img "$bad"
	run 0 "$VCLONE" destage "$MNT"

	run 0 "$VCLONE" ls
	says '^ +SIZE +REFERENCED'
	says '8\.0 MiB .* a\.img$'
	says 'evil\\033\[2J"\\134\\377\\012\.img'
	json "$VCLONE" ls --json
	is "$(value 'len(j)')" 4
	is "$(value 'sorted(os.fsencode(i["name"]) for i in j)[3] == b"evil\x1b[2J\"\\\xff\n.img"')" True
	json "$VCLONE" ls --json a.img c.img
	is "$(value '[i["name"] for i in j]')" "['a.img', 'c.img']"
	is "$(value 'j[0]["logical_bytes"]')" 8388608
	is "$(value 'j[0]["referenced_bytes"] > 4 << 20')" True
	is "$(value 'j[1]["own_bytes"]')" 4096
	is "$(value 'j[1]["pending_bytes"]')" 0
	is "$(value 'j[1]["depth"] - j[0]["depth"]')" 2

	json "$VCLONE" info --json b.img
	is "$(value 'j["origin_name"]')" r/a.img
	is "$(value 'j["origin_inode"]')" "$(stat -c %i a.img)"
	is "$(value 'j["inode"]')" "$(stat -c %i b.img)"
	run 0 "$VCLONE" info b.img
	says '^origin +r/a\.img \(inode'
	rm a.img
	run 0 "$VCLONE" info b.img
	says '^origin +deleted'

	run 0 env LC_ALL=C "$VCLONE" tree
	says '^\(deleted, inode [0-9]+\)$'
	says '^(\||`)- r/b\.img '
	says '^(\|  |   )`- r/c\.img '
	json "$VCLONE" tree --json "$MNT"
	is "$(value '[i["deleted"] for i in j if i["name"] is None]')" "[True]"
	is "$(value '{i["name"]: i["inode"] for i in j}["r/b.img"] == {i["name"]: i["origin_inode"] for i in j}["r/c.img"]')" True

	run 0 "$VCLONE" df
	says '^state +good'
	json "$VCLONE" df --json c.img
	is "$(value 'j["failed"]')" False
	is "$(value 'j["mount"]')" "$(readlink -f "$MNT")"
	# What was deleted may leave the books a moment later: a few records, no data.
	is "$(value 'j["undestaged_bytes"] < 65536')" True
	is "$(value 'j["images"] >= 3')" True
	is "$(value 'j["chunk_bytes"] > 0')" True
	cd /

	run 1 "$VCLONE" ls "$MNT/missing"
	run 1 "$VCLONE" ls "$scratch"
	says 'not on a vclonefs mount'
	run 1 "$VCLONE" tree /proc
	run 1 "$VCLONE" info "$MNT/r"
	says 'Is a directory'
	run 1 "$VCLONE" df "$scratch"
	run 2 "$VCLONE" df a b
	run 2 "$VCLONE" info
}

test_tasks() {
	local before

	head -c 20M /dev/urandom >"$MNT/waste.img"
	run 0 "$VCLONE" destage "$MNT"
	is "$(cat "$out")" ''
	json "$VCLONE" df --json "$MNT"
	# What was deleted may leave the books a moment later: a few records, no data.
	is "$(value 'j["undestaged_bytes"] < 65536')" True
	json "$VCLONE" info --json "$MNT/waste.img"
	is "$(value 'j["exclusive_bytes"]')" None
	run 0 "$VCLONE" clean "$MNT"
	says '^freed '
	json "$VCLONE" info --json "$MNT/waste.img"
	before=$(value 'j["exclusive_bytes"]')
	[ "$before" -ge 20971520 ] || fail "waste.img: exclusive $before"
	run 1 "$VCLONE" clean "$scratch"
	run 2 "$VCLONE" destage
	# Not for everybody. The capability only lets it through the directories above.
	run 1 setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_read_search \
		--ambient-caps=+dac_read_search "$VCLONE" destage "$MNT"
	says 'denied|not permitted'
}

test_init() {
	run 0 "$VCLONE" init --chunk 32K --log-size 64M --log-segment 4M "$scratch/pool"
	[ -f "$scratch/pool/pool" ] || fail "no pool file"
	cp -r "$scratch/pool" "$scratch/pool.before"
	run 1 "$VCLONE" init "$scratch/pool"
	says 'exists|not empty'
	diff -r "$scratch/pool.before" "$scratch/pool" || fail "a refused init changed the pool"
	mkdir "$scratch/full"
	touch "$scratch/full/file"
	run 1 "$VCLONE" init "$scratch/full"
	says 'not empty'
	is "$(ls "$scratch/full")" file
	run 1 "$VCLONE" init "$scratch/missing/pool"
	run 2 "$VCLONE" init
	run 2 "$VCLONE" init --chunk 12K "$scratch/p"
	run 2 "$VCLONE" init --chunk 128K "$scratch/p"
	run 2 "$VCLONE" init --log-size 0 "$scratch/p"
	run 2 "$VCLONE" init --log-size 1X "$scratch/p"
	run 2 "$VCLONE" init --segment 128M "$scratch/p"
	run 2 "$VCLONE" init --segment 4K "$scratch/p"
	run 2 "$VCLONE" init --log-size 32M "$scratch/p"
	run 2 "$VCLONE" init --log-segment 1G "$scratch/p"
	[ ! -e "$scratch/p" ] || fail "a refused init made a directory"
}

setup_pool
mount_pool
out=$TEST_DIR/out
scratch=$TEST_DIR/scratch
mkdir "$scratch"
{ head -c 5M /dev/urandom; head -c 3M /dev/zero; } >"$MNT/golden.img"
sync "$MNT/golden.img"
mkdir "$MNT/dir"

test_usage
test_clone
test_clone_mmap
test_clone_errors
test_clone_many
test_import
test_reports
test_tasks
test_init
unmount_pool
