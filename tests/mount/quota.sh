#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# D8 where a quota is what ends, not the disk: tests/mount/full-disk.sh below project, group and user quotas, in a User-Mode Linux
# guest, because many kernels are built without them. Its first process is tests/power/quota-init.
#
# FS: which, see full-disk.sh. VC_TEST_ROUNDS: cycles of each.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"
. "$SRC_DIR/tests/mount/guest.bash"

setup_guest
command -v mkfs.xfs mkfs.ext4 xfs_quota setpriv >/dev/null || skip "mkfs.ext4, mkfs.xfs, xfs_quota or setpriv is missing"
mkdir "$TEST_DIR/out"
truncate -s 320M "$TEST_DIR/disk"
systems=${FS:-xfs-user}
boot_guest "$TEST_DIR/disk" quota-init VC_SRC="$SRC_DIR" VC_OUT="$TEST_DIR/out" \
	VC_FS="${systems// /,}" VC_TEST_ROUNDS="${VC_TEST_ROUNDS:-1}"
wait "$guest" || :
[ ! -s "$TEST_DIR/out/log" ] || cat "$TEST_DIR/out/log"
[ -s "$TEST_DIR/out/status" ] || fail "the guest ended without a result"
exit "$(cat "$TEST_DIR/out/status")"
