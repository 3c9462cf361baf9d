"""Forked workers that read what their parent made, each part in a function of its own.

The first one reads one list whole and half of another, the second one runs a garbage collection. Each
prints by how much its private memory grew in each function, as the kernel counts it.

Argument: objects in each list.

SPDX-License-Identifier: Apache-2.0
"""

import gc
import os
import sys

COUNT = int(sys.argv[1])


def build_left():
    return [[i] for i in range(COUNT)]  # build left


def build_right():
    return [[i] for i in range(COUNT)]  # build right


def read_left(rows):
    for _ in rows:  # read left
        pass


def read_right(rows):
    for _ in rows[:COUNT // 2]:  # read right
        pass


def collect():
    gc.collect()  # collect


def private():
    with open("/proc/self/smaps_rollup", encoding="ascii") as f:
        for line in f:
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
    return 0


def worker(*steps):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    said = [f"worker pid={os.getpid()}"]
    for name, step in steps:
        before = private()
        step()
        said.append(f"{name}={private() - before}")
    print(*said, flush=True)
    os._exit(0)


left = build_left()
right = build_right()
worker(("left", lambda: read_left(left)), ("right", lambda: read_right(right)))
worker(("collect", collect),)
