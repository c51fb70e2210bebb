# SPDX-License-Identifier: BSD-2-Clause
"""How much is measured, by mode. Sizes in bytes, times in seconds."""
from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass
class Config:
    mode: str = "full"
    reps: int = 3
    limit_seconds: int = 40 * 60        # what the mode promises; said when it is broken
    disk_bytes: int = 33 * GIB          # what a run needs at most
    golden_bytes: int = GIB
    xfs_bytes: int = 6 * GIB            # of the file below XFS, which also holds the raw copies that are compared with it
    btrfs_bytes: int = 5 * GIB          # and below btrfs, which frees what was overwritten only at its next commit
    log_bytes: int = 256 * MIB          # of the pool that is written to
    seconds: float = 4                  # of a fio run
    deep_seconds: float = 15            # of one that must get past the log
    region_bytes: int = 128 * MIB       # written by synchronous writes
    sync_images: int = 8                # written at once
    shared_bytes: int = 128 * MIB       # read by both siblings; fits the cache
    read_numbers: int = 40000           # blocks of a cold read
    drop_caches: bool = True            # of the whole machine, for cold reads; not in a test suite
    cold_options: str = "cache=32M,node_cache=32M"
    cold_limit: int = 256 * MIB         # memory group of the daemon during cold reads, page cache included
    clones: int = 30                    # samples of clone latency
    peer_clones: int = 12               # of an image that has lived, which takes seconds each there
    lived_writes: int = 20000
    sparse_blocks: int = 2000
    batch: int = 10000
    peer_count: int = 1000
    depth: int = 1000
    peer_depth: int = 60
    guest_clones: int = 1000
    guest_peer_clones: int = 10         # of a written image: seconds, likewise
    age_rounds: int = 3
    age_bytes: int = 512 * MIB
    storm: int = 20
    storm_bytes: int = 512 * MIB        # what each of them reads
    space_clones: int = 20
    map_bytes: int = GIB
    memory_images: int = 10000
    recovery_log: int = GIB


def full():
    return Config()


def quick():
    return Config(mode="quick", reps=1, limit_seconds=5 * 60, disk_bytes=9 * GIB, golden_bytes=256 * MIB, xfs_bytes=2 * GIB,
                  btrfs_bytes=2 * GIB, log_bytes=64 * MIB, seconds=1, deep_seconds=2, region_bytes=64 * MIB,
                  shared_bytes=64 * MIB, read_numbers=6000, clones=15, peer_clones=8, lived_writes=5000, sparse_blocks=500, peer_count=200,
                  depth=300, peer_depth=20, guest_clones=300, guest_peer_clones=10, age_rounds=2, age_bytes=96 * MIB, storm=5, storm_bytes=128 * MIB,
                  space_clones=4, map_bytes=256 * MIB, recovery_log=256 * MIB)


def smoke():
    return Config(mode="smoke", reps=1, limit_seconds=60, disk_bytes=2 * GIB, golden_bytes=32 * MIB, xfs_bytes=320 * MIB,
                  btrfs_bytes=400 * MIB, log_bytes=64 * MIB, seconds=0.2, deep_seconds=0.3, region_bytes=8 * MIB,
                  sync_images=2, shared_bytes=8 * MIB, read_numbers=500, drop_caches=False, clones=3, peer_clones=3, lived_writes=200,
                  sparse_blocks=20, batch=200, peer_count=10, depth=20, peer_depth=4, guest_clones=20, guest_peer_clones=10, age_rounds=1,
                  age_bytes=16 * MIB, storm=3, storm_bytes=16 * MIB, space_clones=2, map_bytes=16 * MIB, memory_images=200, recovery_log=64 * MIB)


MODES = {"full": full, "quick": quick, "smoke": smoke}
