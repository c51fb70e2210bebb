#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# The benchmarks run: every row is printed and has a figure, results are JSON, reports can be made of them, and nothing is left behind,
# not even by a run that is interrupted. No time decides anything here.
. "$(dirname "$0")/common.bash"

[ "$(id -u)" = 0 ] || skip "must be root to mount"
[ -c /dev/fuse ] || skip "no /dev/fuse"
for program in fio python3 losetup mkfs.xfs mkfs.ext4 make; do
	command -v $program >/dev/null || skip "no $program"
done
grep -q '^VC_BUILD_CFLAGS = .*-fsanitize' "$BUILD_DIR/Makefile" && skip "the benchmarks are not for builds with sanitizers"

TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/vclonefs-test.XXXXXX")
LOG=$TEST_DIR/log
: >"$LOG"
work=$TEST_DIR/work
smoke_cleanup() {
	local status=$?

	rm -rf --one-file-system -- "$work"
	(exit $status)
	cleanup
}
trap smoke_cleanup EXIT
trap 'exit 129' HUP INT TERM
bench=$SRC_DIR/tests/bench

# In memory, where there is enough of it and it takes direct I/O: the disk has other tests to serve.
mkdir "$work"
if [ "$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)" -gt 4000 ] &&
	dd if=/dev/zero of=/dev/shm/vclonefs-direct.$$ bs=4096 count=1 oflag=direct status=none 2>/dev/null; then
	work=$(mktemp -d /dev/shm/vclonefs-smoke.XXXXXX)
fi
rm -f /dev/shm/vclonefs-direct.$$

nothing_left() {
	[ -z "$(ls -A "$work")" ] || fail "left behind: $(ls -A "$work")"
	grep -q " $work/" /proc/self/mounts && fail "still mounted: $(grep " $work/" /proc/self/mounts)"
	losetup --list --noheadings --output BACK-FILE | grep -q "^$work/" && fail "loop devices are left"
	:
}

run_bench() {
	local name=$1
	shift
	timeout -k 20 250 "$bench/$name" --mode smoke --build "$BUILD_DIR" --dir "$work" --out "$TEST_DIR/out" "$@"
}

make -s -C "$BUILD_DIR" tests/bench/bench_clone tests/bench/bench_fuse tests/bench/bench_pool >"$LOG" 2>&1 || fail "make"

want 2 run_bench bench.py --only no-such-row 2>/dev/null
run_bench bench.py --systems vclonefs,xfs >"$TEST_DIR/all.txt" 2>"$LOG" || { cat "$TEST_DIR/all.txt"; fail "bench.py: status $?"; }
nothing_left
run_bench bench.py --list | awk '/^systems:/ { exit } /^  / { print $1 }' >"$TEST_DIR/rows"
[ "$(wc -l <"$TEST_DIR/rows")" -ge 25 ] || fail "only $(wc -l <"$TEST_DIR/rows") rows"
while read -r row; do
	grep -q "^$row: " "$TEST_DIR/all.txt" || fail "the row $row was not printed"
done <"$TEST_DIR/rows"
python3 - "$TEST_DIR/out/smoke-part.json" "$TEST_DIR/rows" <<'END' || fail "the result is not complete"
import json, sys
data = json.load(open(sys.argv[1]))
rows = {r["id"]: r for r in data["rows"]}
for name in open(sys.argv[2]).read().split():
    figure = rows[name]["figures"]["vclonefs"]
    if name.startswith("storm-"):  # without cold caches, or in memory, there may be nothing to count
        assert "median" in figure or "device" in figure["reason"], (name, figure)
        continue
    assert figure.get("median", 0) > 0 and figure["min"] <= figure["median"] <= figure["max"], (name, figure)
for name in ("write-sync", "write-deep", "read-1", "storm", "clone-ioctl", "import"):
    assert rows[name]["ratios"]["xfs"] > 0 and "daemon_cpu_us" in rows[name]["figures"]["vclonefs"], rows[name]
text = json.dumps(data)
assert sys.argv[1].rsplit("/", 2)[0] not in text, "the result names a path"
END
for plot in rows series; do
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$TEST_DIR/out/smoke-part-$plot.svg" || fail "$plot.svg"
done

# The other peers, as far as this machine has them: measured, or not measured with a reason.
run_bench bench.py --systems vclonefs,raw,fuse,btrfs,qcow2 --only write-sync,clone-ioctl --out "$TEST_DIR/peers" >"$TEST_DIR/peers.txt" 2>"$LOG" ||
	{ cat "$TEST_DIR/peers.txt"; fail "bench.py with the other peers: status $?"; }
for peer in raw btrfs qcow2; do
	[ "$(grep -c "^    $peer  *[0-9n]" "$TEST_DIR/peers.txt")" -ge 3 ] || fail "$peer is silently missing"
done
[ "$(grep -c "^    fuse  *[0-9]" "$TEST_DIR/peers.txt")" -eq 2 ] || fail "fuse has a figure in two of these rows"
grep -q '^    raw *not measured: a plain file has no clones' "$TEST_DIR/peers.txt" || fail "raw files have no clones, and nobody says so"

run_bench scale.py >"$TEST_DIR/scale.txt" 2>"$LOG" || { cat "$TEST_DIR/scale.txt"; fail "scale.py: status $?"; }
nothing_left
printf 'before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n' >"$TEST_DIR/paper.md"
"$bench/report.py" --into "$TEST_DIR/paper.md" "$TEST_DIR/out/smoke-part.json" "$TEST_DIR/out/scale-part.json" || fail "report.py"
grep -q '^| import by cp' "$TEST_DIR/paper.md" && grep -q '^| mapped blocks' "$TEST_DIR/paper.md" || fail "the report lacks rows"
grep -q '^old' "$TEST_DIR/paper.md" && fail "the old figures are still there"

# What a generated pool holds is sound.
mkdir "$TEST_DIR/mnt"
"$VCLONE" init --log-size 64M "$TEST_DIR/pool" >/dev/null
"$VCLONEFS" -f "$TEST_DIR/pool" "$TEST_DIR/mnt" >>"$LOG" 2>&1 &
daemon_pid=$! MNT=$TEST_DIR/mnt
until mountpoint -q "$MNT"; do kill -0 $daemon_pid 2>/dev/null || fail "no mount"; done
head -c 8M "$VCLONEFS" >"$MNT/seed.img"
unmount_pool
"$BUILD_DIR/tests/bench/bench_pool" grow "$TEST_DIR/pool" seed.img many- 3 200000 random >/dev/null || fail "grow random"
"$BUILD_DIR/tests/bench/bench_pool" grow "$TEST_DIR/pool" seed.img row- 1 300000 seq >/dev/null || fail "grow seq"
"$VCLONE" check --data "$TEST_DIR/pool" >"$LOG" || fail "the generated pool is not clean: $(cat "$LOG")"
grep -q '^5 images' "$LOG" || fail "not all images are there: $(cat "$LOG")"

# Interrupted while a child starts.
timeout -k 5 60 python3 - "$bench" "$work" >"$TEST_DIR/starting.txt" 2>&1 <<'END' || fail "a child outlived the run: $(cat "$TEST_DIR/starting.txt")"
import os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import work

class Interrupted(subprocess.Popen):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        started.append(self)
        if len(started) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # a signal is handled between two steps of Python

started = []
subprocess.Popen = Interrupted
here = work.Work(sys.argv[2], 1 << 20, print)
try:
    here.start("tail", f"--pid={os.getpid()}", "-f", "/dev/null")
    sys.exit("it was not interrupted")
except KeyboardInterrupt:
    pass
closed = here.close()
running = started[0].poll() is None
started[0].kill()
sys.exit(not closed or running)
END
nothing_left

# Interrupted in the middle.
timeout -k 20 100 "$bench/bench.py" --mode smoke --build "$BUILD_DIR" --dir "$work" --out "$TEST_DIR/stopped" --systems vclonefs,xfs \
	--only read >"$TEST_DIR/interrupted.txt" 2>&1 &
pid=$!
until grep -q " $work/.*/vclonefs " /proc/self/mounts; do
	kill -0 $pid 2>/dev/null || fail "ended before it was interrupted: $(cat "$TEST_DIR/interrupted.txt")"
done
kill -TERM $pid
status=0
wait $pid || status=$?
[ $status -eq 130 ] || [ $status -eq 143 ] || [ $status -eq 124 ] || fail "interrupted: status $status"
grep -q '^interrupted; cleaning up' "$TEST_DIR/interrupted.txt" || fail "it did not notice: $(cat "$TEST_DIR/interrupted.txt")"
nothing_left
