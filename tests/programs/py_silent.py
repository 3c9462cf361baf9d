"""A worker that only reads a list, allocates nothing, and is killed.

Its parent, which goes on making allocations, prints the worker's private dirty memory as the kernel
counts it just before the kill. Arguments: objects, seconds.

SPDX-License-Identifier: Apache-2.0
"""

import os
import signal
import sys
import time

data = [i + 1000 for i in range(int(sys.argv[1]))]  # the line


def private_dirty(pid):
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
    return 0


def read():
    while True:
        data.count(None)  # not even an iterator is made: with objects traced that is an event


def main():
    child = os.fork()
    if not child:
        read()
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        time.sleep(0.02)
        bytearray(100000)
    truth = private_dirty(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("silent pid=%d copied=%d" % (child, truth))


main()
