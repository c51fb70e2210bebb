#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Hostile users: everything a second and a third user have no right to is refused with the right errno and without effect. The table is
# hostile.py.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

setup_pool
mount_pool destage_ms=never
export MNT
python3 "$SRC_DIR/tests/mount/hostile.py" || fail "the table"
python3 "$SRC_DIR/tests/mount/hostile_race.py" 1 || fail "the races"
unmount_pool
