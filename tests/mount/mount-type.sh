#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Installed: mount -t fuse.vclonefs, a line of fstab, umount, and mounting again after the daemon was killed; the unit file is one.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.bash"

# mount(8) starts the program with a path of its own. In a name space of its own the installed program can be put there.
if [ -z "${IN_NAMESPACE:-}" ]; then
	[ "$(id -u)" = 0 ] || skip "must be root to mount"
	unshare --mount --propagation private true 2>/dev/null || skip "no mount name spaces"
	IN_NAMESPACE=1 exec unshare --mount --propagation private "$0"
fi
[ -d /usr/local/sbin ] || skip "no /usr/local/sbin"
[ -e /sbin/mount.fuse ] || [ -e /sbin/mount.fuse3 ] || skip "no mount.fuse"
command -v make >/dev/null || skip "no make"
POOL_OPTIONS='--log-size 16M --log-segment 2M --segment 4M'
setup_pool
[ -e "$BUILD_DIR/Makefile" ] || skip "no Makefile in $BUILD_DIR"
make -s -C "$BUILD_DIR" install DESTDIR="$TEST_DIR/installed" >"$TEST_DIR/out" 2>&1 || { cat "$TEST_DIR/out"; fail "make install"; }
program=$(find "$TEST_DIR/installed" -name vclonefs -type f)
[ -x "$program" ] || fail "no program installed"
mount --bind "${program%/*}" /usr/local/sbin
program=/usr/local/sbin/vclonefs

daemons() {
	local exe
	for exe in /proc/[0-9]*/exe; do
		[ "$(readlink "$exe" 2>/dev/null)" = "$program" ] && basename "${exe%/exe}"
	done
	return 0
}
kill_daemons() {
	local pid
	for pid in $(daemons); do
		kill -KILL "$pid" 2>/dev/null || :
	done
}
finish() {
	local status=$?
	set +e
	kill_daemons
	(exit $status) # what cleanup ends with
	cleanup
}
trap finish EXIT
all_gone() {
	for _ in $(seq 400); do
		[ -z "$(daemons)" ] && return
		sleep 0.05
	done
	fail "a daemon still runs"
}
is_there() {
	[ "$(findmnt -n -o FSTYPE,SOURCE "$MNT" | tr -s ' ')" = "fuse.vclonefs $POOL" ] || fail "mounted as: $(findmnt -n "$MNT")"
	findmnt -n -o OPTIONS "$MNT" | grep -q nosuid,nodev || fail "nosuid and nodev are lost"
	findmnt -n -o OPTIONS "$MNT" | grep -q default_permissions || fail "no permissions"
}

# mount.fuse asks for suid and dev when nobody says otherwise, the program itself does not.
"$program" "$POOL" "$MNT" -o allow_other
is_there
umount "$MNT"
all_gone
for options in allow_other,nosuid,nodev allow_other,nosuid,nodev,run_as=root; do
	mount -t fuse.vclonefs "$POOL" "$MNT" -o "$options,cache=16M" || fail "mount -o $options: status $?"
	is_there
	echo "$options" >"$MNT/file"
	echo 'file clone' >"$MNT/.clone"
	umount "$MNT"
	all_gone
	mount -t fuse.vclonefs "$POOL" "$MNT" -o ro,$options || fail "mount -o ro,$options: status $?"
	[ "$(cat "$MNT/clone")" = "$options" ] || fail "the clone after mounting again"
	! : 2>/dev/null >"$MNT/clone" || fail "ro, and written to"
	umount "$MNT"
	all_gone
	mount -t fuse.vclonefs "$POOL" "$MNT" -o "$options"
	rm "$MNT/clone"
	umount "$MNT"
	all_gone
done

# With drop_privileges mount.fuse mounts by itself, and lets the kernel check nothing: refused.
! mount -t fuse.vclonefs "$POOL" "$MNT" -o allow_other,drop_privileges 2>"$TEST_DIR/out" || fail "mounted without permission checks"
grep -q "run_as=root" "$TEST_DIR/out" || fail "no message: $(cat "$TEST_DIR/out")"
while mountpoint -q "$MNT" || grep -q " $MNT " /proc/self/mounts; do
	umount --lazy "$MNT"
done

# A line of fstab, with options that are mount(8)'s own.
cat >"$TEST_DIR/fstab" <<END
# device  directory  type  options  dump  pass
$POOL $MNT fuse.vclonefs allow_other,nosuid,nodev,noauto,nofail,x-systemd.requires-mounts-for=$TEST_DIR,destage_ms=100 0 0
END
mount -T "$TEST_DIR/fstab" "$MNT" || fail "mount by fstab: status $?"
is_there
[ "$(cat "$MNT/file")" = allow_other,nosuid,nodev,run_as=root ] || fail "other content"
echo acknowledged >"$MNT/killed"

# Killed: a dead mount point says so, and can be mounted again once it is unmounted.
kill_daemons
all_gone
want 1 stat "$MNT" >/dev/null 2>"$TEST_DIR/out"
grep -q "not connected" "$TEST_DIR/out" || fail "a dead mount: $(cat "$TEST_DIR/out")"
! mount -t fuse.vclonefs "$POOL" "$MNT" -o allow_other 2>"$TEST_DIR/out" || fail "mounted over a dead mount"
umount --lazy "$MNT"
mount -T "$TEST_DIR/fstab" "$MNT" || fail "mount after a kill: status $?"
[ "$(cat "$MNT/killed")" = acknowledged ] || fail "lost by SIGKILL"
# In use: the status of mount(8), and one mount.
want 32 mount -t fuse.vclonefs "$POOL" "$MNT" -o allow_other 2>"$TEST_DIR/out"
grep -q "in use" "$TEST_DIR/out" || fail "no message: $(cat "$TEST_DIR/out")"
[ "$(grep -c " $MNT " /proc/self/mounts)" -eq 1 ] || fail "mounted twice"
umount "$MNT"
all_gone

# The unit: no PID 1 is asked to run it here, but it is one, and its options are those the program has.
if command -v systemd-analyze >/dev/null; then
	sed "s|^ExecStart=vclonefs|ExecStart=$program|" "$SRC_DIR/contrib/systemd/vclonefs@.service" >"$TEST_DIR/vclonefs@lab.service"
	systemd-analyze verify --man=no "$TEST_DIR/vclonefs@lab.service" >"$TEST_DIR/out" 2>&1 || { cat "$TEST_DIR/out"; fail "the unit"; }
	[ ! -s "$TEST_DIR/out" ] || fail "the unit: $(cat "$TEST_DIR/out")"
fi
