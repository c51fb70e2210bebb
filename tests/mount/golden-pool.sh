#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Pools made by earlier versions must stay readable for ever. tests/golden/format-N.tar.xz is a pool of format N whose daemon was
# killed: maps and chunks of a checkpoint, and clones and a write that only its log has. format-N.sum tells what it holds.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

golden=$SRC_DIR/tests/golden
command -v xz >/dev/null || skip "no xz"
setup_pool
for archive in "$golden"/format-*.tar.xz; do
	name=$(basename "$archive" .tar.xz)
	POOL=$TEST_DIR/$name/pool
	mkdir "$TEST_DIR/$name"
	tar -xJf "$archive" -C "$TEST_DIR/$name"
	"$VCLONE" check --data --log "$POOL" || fail "$name: check: status $?"

	# As it is, replayed in memory only, and then for good.
	for options in ro rw rw; do
		mount_pool $options
		(cd "$MNT" && sha256sum --quiet -c "$golden/$name.sum") || fail "$name, $options: other content"
		[ "$(readlink "$MNT/link")" = dir/data ] || fail "$name: the symbolic link"
		[ "$MNT/hard" -ef "$MNT/dir/data" ] || fail "$name: the hard link"
		unmount_pool
	done
	mount_pool
	cp "$MNT/golden.img" "$MNT/new"
	cmp "$MNT/golden.img" "$MNT/new"
	timeout 60 "$VCLONE" clean "$MNT" >/dev/null
	(cd "$MNT" && sha256sum --quiet -c "$golden/$name.sum") || fail "$name: other content after clean"
	unmount_pool
	"$VCLONE" check --data --log "$POOL" || fail "$name: check at the end: status $?"
done
