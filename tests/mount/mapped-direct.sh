#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# A handle that the daemon has past the page cache can be mapped all the same: one opened without O_DIRECT while an O_DIRECT one
# exists. Pages changed through such a mapping are written back through that handle, and the kernel holds them until the daemon
# has answered. So the daemon must not ask it to drop them first because others use the cache: both would wait for ever.
set -euo pipefail
. "${SRC_DIR:?}/tests/mount/common.bash"

setup_pool
mount_pool

cat >"$TEST_DIR/mapped.py" <<'EOF'
import mmap, os, sys
path, n = sys.argv[1], 64 * 4096
cached = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(cached, b'a' * n, 0)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, n)
buf = mmap.mmap(-1, 4096)
for i in range(50):
    text = b'mapped%d' % (i % 10)
    m[i * 4096:i * 4096 + 7] = text
    m.flush()
    os.preadv(direct, [buf], i * 4096)
    assert buf[:7] == text, buf[:7]
    assert os.pread(cached, 7, i * 4096) == text
    buf[:] = b'd' * 4096  # changes past the cache are seen by the mapping and by those who read cached
    os.pwritev(direct, [buf], (i + 1) % 64 * 4096)
    assert m[(i + 1) % 64 * 4096] == ord('d')
    assert os.pread(cached, 7, (i + 1) % 64 * 4096) == b'd' * 7
print('done')
EOF
python3 "$TEST_DIR/mapped.py" "$MNT/image" >"$TEST_DIR/out" 2>&1 &
writer=$!
for _ in $(seq 300); do
	kill -0 $writer 2>/dev/null || break
	sleep 0.1
done
if ! grep -qx done "$TEST_DIR/out"; then
	# Neither ends by a signal when they wait for each other: cut the connection.
	minor=$(awk -v m="$MNT" '$5 == m { sub(/.*:/, "", $3); print $3 }' /proc/self/mountinfo)
	mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections
	echo 1 >"/sys/fs/fuse/connections/$minor/abort" || :
	cat "$TEST_DIR/out"
	fail "writing back a mapping did not end"
fi
wait $writer
unmount_pool
