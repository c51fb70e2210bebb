#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The daemon may have far fewer descriptors than the pool has chunk files: everything reads back, writing, destage, delete and clean work.
set -euo pipefail
. "$(dirname "$0")/common.bash"

POOL_OPTIONS='--log-size=8M --log-segment=1M --segment=1M'
setup_pool

state=$TEST_DIR/state
full() {
	python3 "$SRC_DIR/tests/mount/full-disk.py" "$MNT" "$TEST_DIR" "$state" "$@"
}

command -v prlimit >/dev/null || skip "no prlimit"
mount_pool destage_ms=3600000
full fill a 60000000 65536 >/dev/null
full fill b 20000000 4096 >/dev/null
want 0 "$VCLONE" destage "$MNT"
segments=$(find "$POOL/chunk" -name '*.seg' | wc -l)
[ "$segments" -gt 60 ] || fail "only $segments chunk files"
unmount_pool

printf '#!/bin/sh\nexec prlimit --nofile=64:64 "%s" "$@"\n' "$VCLONEFS" >"$TEST_DIR/limited"
chmod +x "$TEST_DIR/limited"
unlimited=$VCLONEFS VCLONEFS=$TEST_DIR/limited
mount_pool destage_ms=3600000
grep -q 'Max open files *64 ' /proc/$daemon_pid/limits || fail "the limit is not that of the daemon"
full verify || fail verify
full fill c 10000000 65536 >/dev/null
full fill d 4000000 4096 >/dev/null
full delete a
want 0 "$VCLONE" clean "$MNT"
full verify || fail verify
unmount_pool
VCLONEFS=$unlimited
want 0 "$VCLONE" check --data "$POOL" >>"$LOG"
