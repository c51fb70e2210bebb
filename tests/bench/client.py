# SPDX-License-Identifier: BSD-2-Clause
"""The client: the same for all systems. fio for data, bench_clone for clones."""
import json
import os
import subprocess
import time

import machine
from work import Failed


def fio_command(paths, rw, block=4096, depth=1, seconds=None, size=None, numbers=None, fdatasync=False, seed=1):
    """Direct I/O of one thread a file. seconds: repeat until then; without: each block of `size` once, at most 60 s."""
    command = ["fio", "--output-format=json", "--thread", "--group_reporting", "--direct=1", "--fallocate=none",
               "--allow_file_create=0", f"--randseed={seed}", f"--rw={rw}", f"--bs={block}",
               "--refill_buffers", "--buffer_compress_percentage=50",
               "--ioengine=psync" if depth == 1 else "--ioengine=libaio", f"--iodepth={depth}"]
    if size:
        command.append(f"--size={size}")
    if seconds:
        command += ["--time_based", f"--runtime={seconds}"]
    else:
        command.append("--runtime=60")
    if numbers:
        command.append(f"--number_ios={numbers}")
    if fdatasync:
        command.append("--fdatasync=1")
    for i, path in enumerate(paths):
        command += [f"--name=client{i}", f"--filename={path}"]
    return command


def fio_result(text, rw):
    try:
        job = json.loads(text[text.index("{"):])["jobs"][0]
    except (ValueError, KeyError, IndexError):
        raise Failed("fio's output makes no sense") from None
    if job["error"]:
        raise Failed(f"fio: {os.strerror(job['error'])}")
    side = job["write" if "write" in rw else "read"]
    if not side["total_ios"]:
        raise Failed("fio did nothing")
    percentile = side["clat_ns"].get("percentile", {})
    return {"iops": side["iops"], "bytes_per_s": side["bw_bytes"], "ios": side["total_ios"], "bytes": side["io_bytes"],
            "seconds": side["runtime"] / 1000, "p50_us": percentile.get("50.000000", 0) / 1000,
            "p99_us": percentile.get("99.000000", 0) / 1000}


class Client:
    def __init__(self, bench):
        self.bench = bench
        self.work = bench.work

    def warm(self):
        """Have fio in memory: what it reads of itself is not to be measured."""
        path = self.work.path("warm")
        if not os.path.exists(path):
            with open(path, "wb") as f:
                f.write(bytes(4096))
        for depth in (1, 2):
            self.fio(path, "read", depth=depth)

    def fio(self, paths, rw, **options):
        paths = [paths] if isinstance(paths, str) else paths
        return fio_result(self.work.run(*fio_command(paths, rw, **options), limit=300), rw)

    def fio_beside(self, path, rw, beside, **options):
        """The same while beside() runs; both have ended on return. Gives the result and that of beside()."""
        process = self.work.spawn(fio_command([path], rw, **options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self.wait_for_writes(process, path)
            got = beside()
            out, _ = process.communicate(timeout=300)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            self.work.children.pop(process.pid, None)
        if process.returncode != 0:
            raise Failed("fio: " + out.decode(errors="replace").strip()[-200:])
        return fio_result(out.decode(), rw), got

    @staticmethod
    def wait_for_writes(process, path):
        """fio is at work once it has written, which its process's counter tells."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            for line in machine.read(f"/proc/{process.pid}/io").splitlines():
                if line.startswith("write_bytes:") and int(line.split()[1]) > 0:
                    return
                if line.startswith("syscw:") and int(line.split()[1]) > 50:
                    return
            time.sleep(0.01)

    def measured(self, system, paths, rw, **options):
        """fio with what it costs: (result, usage of a request)."""
        usage = machine.Usage(self.bench.device, system.pids())
        result = self.fio(paths, rw, **options)
        cost = usage.end(result["ios"])
        return result, cost

    def clones(self, method, directory, sources, *options):
        """Microseconds of each clone, a list for every source."""
        sources = [sources] if isinstance(sources, str) else sources
        out = self.work.run(os.path.join(self.bench.build, "tests/bench/bench_clone"), *options, method, directory, *sources)
        times = [[] for _ in sources]
        for line in out.splitlines():
            index, us = line.split()
            times[int(index)].append(float(us))
        return times
