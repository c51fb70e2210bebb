# SPDX-License-Identifier: BSD-2-Clause
"""Clones race with chmod (hostile.sh): what chmod has taken away when it returned is gone, also for a clone that was asked for
before. SECONDS is for each of the two races."""
import signal
import time

from vctest import *

SECONDS = float(sys.argv[1])


def attacker(number, attempt):
    """Forks a process of user 2001 that tries until it is killed."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(int(SECONDS) + 60)
    os.setgroups([])
    os.setresgid(2001, 2001, 2001)
    os.setresuid(2001, 2001, 2001)
    dir = os.open(MNT, os.O_RDONLY)
    for i in range(1 << 30):
        try:
            fcntl.ioctl(dir, CLONE, bytearray(attempt(f"{number}-{i}")))
        except OSError as e:
            if e.errno != errno.EACCES:
                os._exit(1)
    os._exit(1)


def race(attempt, round):
    """Rounds, while three attackers run; returns how many."""
    attackers = [attacker(n, attempt) for n in range(3)]
    done, until = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < until or done == 0:
            round(done)
            done += 1
    finally:
        for pid in attackers:
            same(os.waitpid(pid, os.WNOHANG), (0, 0), "an attacker got another error and ended")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return done


def close_directory(_):
    dir = path("race-dir")
    before = len(os.listdir(dir))
    os.chmod(dir, 0o777)
    while len(os.listdir(dir)) == before:
        pass
    os.chmod(dir, 0o700)
    seen = sorted(os.listdir(dir))
    for _ in range(10):
        same(len(os.listdir(dir)), len(seen), "a name was made in a directory after chmod had closed it")


def close_source(i):
    src = path("race-src")
    os.chmod(src, 0o600)
    write("race-src", b"secret %8d" % i)
    write("race-src", b"public %8d" % i)
    os.chmod(src, 0o644)
    before = len(os.listdir(path("race-out")))
    while len(os.listdir(path("race-out"))) == before:
        pass


for name in "race-dir", "race-out":
    os.mkdir(path(name))
    os.chmod(path(name), 0o777)
write("race-src", b"public %8d" % 0)
n = race(lambda name: clone_arg("race-src", "race-dir/" + name), close_directory)
made = len(os.listdir(path("race-dir")))
print(f"{n} times a directory was closed while {made} clones were made in it")
n = race(lambda name: clone_arg("race-src", "race-out/" + name), close_source)
clones = [read("race-out/" + name) for name in os.listdir(path("race-out"))]
secret = [c for c in clones if c.startswith(b"secret")]
print(f"{n} times a source was closed while {len(clones)} clones of it were made")
check(len(clones) >= n, "no clones")
same(secret, [], "clones of what was written while nobody but root could read it")
