"""Python objects made and dropped at Python depth 20.

    churn.py blocks|objects COUNT

blocks: each is too large for CPython's own allocator and is one malloc and one free; objects: each
is one small object. Prints one JSON line: CPU and wall nanoseconds per object.

SPDX-License-Identifier: Apache-2.0
"""

import itertools
import json
import sys
import time

DEPTH = 20


def make_blocks(count):
    piece = b"x" * 600
    other = b"y"
    for _ in itertools.repeat(None, count):  # a range would make an int each time
        piece + other


def make_objects(count):
    piece = b"x" * 40
    other = b"y"
    for _ in itertools.repeat(None, count):
        piece + other


def descend(levels, make, count):
    if levels:
        return descend(levels - 1, make, count)
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    make(count)
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def main():
    make = {"blocks": make_blocks, "objects": make_objects}[sys.argv[1]]
    count = int(sys.argv[2])
    wall, cpu = descend(DEPTH - 4, make, count)  # the module, main, descend(0) and make are frames too
    print(json.dumps({"wall": wall / count, "cpu": cpu / count}))


main()
