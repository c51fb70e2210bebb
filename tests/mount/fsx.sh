#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Random operations on images and clones through a mount, against a model (tests/fsx): one thread, several, and clones of what
# is being written; with kills and new mounts in between.
# FSX_SECONDS: of each run.
set -euo pipefail
. "${SRC_DIR:?}/tests/mount/common.bash"

[ "$(id -u)" = 0 ] || skip "must be root to mount"
[ -c /dev/fuse ] || skip "no /dev/fuse"
fsx=$BUILD_DIR/tests/fsx/fsx
[ -x "$fsx" ] || fail "$fsx is missing"
TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vclonefs-test.XXXXXX")
MNT=$TEST_DIR/now/mnt
trap cleanup EXIT
trap 'exit 129' HUP INT TERM

for run in "-t 1" "-t 4" "-c -t 3"; do
	mkdir "$TEST_DIR/now"
	# shellcheck disable=SC2086
	want 0 "$fsx" -m -T "${FSX_SECONDS:-9}" $run -d "$TEST_DIR/now" ${VC_TEST_SEED:+-S $VC_TEST_SEED}
	rm -rf --one-file-system "${TEST_DIR:?}/now"
done
