# SPDX-License-Identifier: BSD-2-Clause
"""A directory that holds everything a benchmark makes, commands with a time limit, and cleaning up after any accident.

What is cleaned is found, not remembered: mounts and loop devices that lie below the directory, then processes by the pids of the
children started here, then the directory. A run that was killed with SIGKILL is cleaned up after by the next one in the same place.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PREFIX = "vclonefs-bench."
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OWNER = "owner"  # holds the pid of the run, and when that process started


class Failed(Exception):
    """Something a measurement needs did not work; the text is for the report."""


class NotMeasured(Exception):
    """This cannot be measured here, for the reason given."""


def start_of(pid):
    """When a process started, in ticks since boot; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def unescape(text):
    """A path as /proc/self/mountinfo has it."""
    for number, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace("\\" + number, char)
    return text


def mounts_below(directory):
    """Mount points below a directory, the last mounted first."""
    with open("/proc/self/mountinfo") as f:
        points = [unescape(line.split()[4]) for line in f]
    return [p for p in reversed(points) if p.startswith(directory + "/")]


def is_mounted(path):
    return path in mounts_below(os.path.dirname(path))


def loops_below(directory):
    out = subprocess.run(["losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"],
                         capture_output=True, text=True, timeout=60).stdout
    pairs = [line.split(" ", 1) for line in out.splitlines() if " " in line]
    return [name for name, back in pairs if back.startswith(directory + "/")]


def quiet(command):
    """Run for its effect, whatever comes of it."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def unmount(path, patience=60):
    """Unmount; what stays busy is detached."""
    deadline = time.monotonic() + patience
    while not quiet(["umount", path]):
        if not is_mounted(path):
            return
        if time.monotonic() > deadline:
            quiet(["umount", "-l", path])
            return
        time.sleep(0.05)


def sweep(directory):
    """Take down what lies below a directory: mounts, loop devices, files."""
    for point in mounts_below(directory):
        unmount(point, patience=5)
    for loop in loops_below(directory):
        quiet(["losetup", "-d", loop])
    shutil.rmtree(directory, ignore_errors=True)


class Work:
    def __init__(self, base, max_bytes, say):
        if os.geteuid() != 0:
            raise NotMeasured("mounting needs root")
        if not os.path.exists("/dev/fuse"):
            raise NotMeasured("/dev/fuse is missing")
        self.say = say
        self.children = {}
        self.starting = self.interrupted = False
        self.log = None
        base = os.path.realpath(base)
        self.sweep_dead(base)
        space = os.statvfs(base)
        free = space.f_bavail * space.f_frsize
        if free < max_bytes * 1.05:
            raise NotMeasured(f"{free >> 30} GiB are free, {max_bytes * 1.05 / 2**30:.1f} GiB are needed; "
                              "name another directory with --dir")
        self.dir = tempfile.mkdtemp(prefix=PREFIX, dir=base)
        with open(self.path(OWNER), "w") as f:
            f.write(f"{os.getpid()} {start_of(os.getpid())}")
        self.log = open(self.path("output.log"), "wb", buffering=0)
        self.began = time.monotonic()
        for number in INTERRUPTS:
            signal.signal(number, self.interrupt)

    def interrupt(self, number, frame):
        if not self.starting:
            raise KeyboardInterrupt
        self.interrupted = True

    @staticmethod
    def ignore_interrupts():
        """From now on: what cleans up is not to be stopped half way by an impatient Ctrl-C."""
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)

    def sweep_dead(self, base):
        for name in os.listdir(base):
            path = os.path.join(base, name)
            try:
                with open(os.path.join(path, OWNER)) as f:
                    pid, start = f.read().split()
            except (OSError, ValueError):
                continue
            if name.startswith(PREFIX) and start_of(pid) != start:
                self.say(f"removing what an earlier run left: {name}")
                sweep(path)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def tail(self, nbytes=1500):
        with open(self.path("output.log"), "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - nbytes))
            return f.read().decode(errors="replace").strip()

    # ---- commands ----

    def spawn(self, command, **how):
        """Start a child in a session of its own, so that Ctrl-C comes to us alone; an interruption waits until the child is known."""
        self.starting = True
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **how)
            self.children[process.pid] = process
            return process
        finally:
            self.starting = False
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt

    def run(self, *command, limit=600, quiet_failure=False):
        """Run to the end; returns its output."""
        command = [str(c) for c in command]
        process = self.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, errors = process.communicate(timeout=limit)
        except BaseException as e:
            process.kill()
            process.wait()
            if isinstance(e, subprocess.TimeoutExpired):
                raise Failed(f"{os.path.basename(command[0])} was still running after {limit} s") from None
            raise
        finally:
            self.children.pop(process.pid, None)
        self.log.write(b"%.2f $ " % (time.monotonic() - self.began) + " ".join(command).encode() + b"\n" + out[-4000:] + errors[-4000:])
        if process.returncode != 0 and not quiet_failure:
            text = (errors or out).decode(errors="replace").strip().splitlines()
            raise Failed(f"{os.path.basename(command[0])} {command[1] if len(command) > 1 else ''}: "
                         f"status {process.returncode}: {text[-1] if text else ''}")
        return out.decode(errors="replace")

    def start(self, *command):
        """Start a program that stays: a daemon, or a load beside a measurement."""
        return self.spawn([str(c) for c in command], stdout=self.log, stderr=subprocess.STDOUT)

    def wait_mounted(self, process, point, patience=30):
        """Until a child that serves a file system has mounted it."""
        deadline = time.monotonic() + patience
        while not is_mounted(point):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{os.path.basename(process.args[0])} does not mount: {self.tail(300)}")
            time.sleep(0.005)

    def stop(self, process, number=signal.SIGTERM, patience=60):
        """End a child and wait for it."""
        if process.poll() is None:
            process.send_signal(number)
        self.wait(process, patience)

    def wait(self, process, patience):
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"{os.path.basename(process.args[0])} did not end within {patience} s") from None
        finally:
            self.children.pop(process.pid, None)

    # ---- the end ----

    def close(self):
        """Remove everything."""
        self.ignore_interrupts()
        for point in mounts_below(self.dir):
            unmount(point, patience=10)
        for process in list(self.children.values()):
            try:
                self.stop(process, patience=20)
            except Failed as e:
                self.say(str(e))
        self.log.close()
        sweep(self.dir)
        left = mounts_below(self.dir) + loops_below(self.dir) + [self.dir] * os.path.exists(self.dir)
        if left:
            print("bench: could not remove:", *left, file=sys.stderr)
        return not left
