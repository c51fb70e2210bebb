# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel knows: the machine, the device below a directory, CPU time, memory; and dropping caches."""
import contextlib
import os
import re
import subprocess
import time

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def read(path, default=""):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return default


def version(*command):
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "missing"
    lines = (out.stdout or out.stderr).strip().splitlines()
    return re.sub(r"\s*\(.*", "", lines[0]) if lines else "?"


def describe(directory, vclonefs):
    """The machine as it may be published: no names of hosts, no paths."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", read("/proc/meminfo"), re.M)
    return {
        "kernel": os.uname().release,
        "cpu": cpu.group(1) if cpu else os.uname().machine,
        "cpus": os.cpu_count(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "filesystem": version("stat", "-f", "-c", "%T", directory),
        "virtual": "hypervisor" in read("/proc/cpuinfo"),
        "versions": {
            "vclonefs": version(vclonefs, "--version"),
            "fio": version("fio", "--version"),
            "xfsprogs": version("mkfs.xfs", "-V"),
            "btrfs-progs": version("mkfs.btrfs", "--version"),
            "qemu": version("qemu-storage-daemon", "--version"),
            "python": ".".join(version("python3", "--version").split()[1:]),
        },
    }


class Device:
    """The block device below a directory, by the kernel's own counters."""

    def __init__(self, directory):
        number = os.stat(directory).st_dev
        self.dir = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
        self.stat = os.path.join(self.dir, "stat")
        self.known = os.path.exists(self.stat)

    def bytes(self):
        """(read, written) since boot; None when the file system has no single device."""
        if not self.known:
            return None
        fields = read(self.stat).split()
        return int(fields[2]) * 512, int(fields[6]) * 512


def process_cpu_us(pid):
    """User and system time of all threads of a process. Nanoseconds per live thread where the kernel has them, else ticks."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(read(f"/proc/{pid}/task/{task}/schedstat", "0").split()[0]) / 1000
    except OSError:
        return 0
    if total:
        return total
    fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[-1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US if len(fields) > 12 else 0


def machine_cpu_us():
    """Time that all processors were busy since boot, whoever it was."""
    fields = [int(x) for x in read("/proc/stat").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_US


def rss_bytes(pid):
    match = re.search(r"^VmRSS:\s*(\d+)", read(f"/proc/{pid}/status"), re.M)
    return int(match.group(1)) * 1024 if match else 0


def drop_caches():
    """Of clean pages: what is measured was synced by those who wrote it."""
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


class Usage:
    """CPU and device traffic between two moments."""

    def __init__(self, device, pids):
        self.device = device
        self.pids = pids
        self.start = self.now()

    def now(self):
        return (time.monotonic(), {p: process_cpu_us(p) for p in self.pids}, machine_cpu_us(), self.device.bytes())

    def end(self, operations):
        """Figures to be kept beside a value; times a single operation, in microseconds."""
        before, after = self.start, self.now()
        operations = max(operations, 1)
        out = {"seconds": round(after[0] - before[0], 3),
               "machine_cpu_us": round((after[2] - before[2]) / operations, 2)}
        if self.pids:
            spent = sum(after[1][p] - before[1][p] for p in self.pids)
            out["daemon_cpu_us"] = round(max(spent, 0) / operations, 2)
        if before[3] and after[3]:
            out["device_read"] = after[3][0] - before[3][0]
            out["device_written"] = after[3][1] - before[3][1]
        return out


# ---- memory limits, so that the page cache below a daemon is bounded too ----

def limit_group():
    """Directory below which a memory group can be made, and its file for the limit; None when there is none."""
    if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        return "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
    if "memory" in read("/sys/fs/cgroup/cgroup.subtree_control").split():
        return "/sys/fs/cgroup", "memory.max"
    return None


@contextlib.contextmanager
def memory_limit(name, nbytes):
    """A memory group of that size; gives a function that moves a process into it, or None when the machine has no such groups."""
    place = limit_group()
    if not place:
        yield None
        return
    path = os.path.join(place[0], name)
    try:
        os.mkdir(path)
        with open(os.path.join(path, place[1]), "w") as f:
            f.write(str(nbytes))
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(path)
        yield None
        return

    def move(pid):
        with open(os.path.join(path, "cgroup.procs"), "w") as f:
            f.write(str(pid))
    try:
        yield move
    finally:
        for pid in read(os.path.join(path, "cgroup.procs")).split():
            with contextlib.suppress(OSError), open(os.path.join(place[0], "cgroup.procs"), "w") as f:
                f.write(pid)
        for _ in range(100):
            try:
                os.rmdir(path)
                break
            except OSError:
                time.sleep(0.02)
