"""Memory that Python programs freed and still hold: the case is the first argument, its size the second.

    threads COUNT   threads that free all but their last array: their arenas keep the rest
    top COUNT       one small array on top of the heap, above large ones that are gone
    words COUNT     strings of which every 3000th stays: arenas of Python's held by a few objects
    large MIB       one array of which a tenth is touched
    objects COUNT   a list that small objects are added to all the time, beside others that go

Prints "trim before=BYTES after=BYTES" (resident before and after malloc_trim() in a forked child) and
"kept bytes=N". `words` prints CPython's own statistics on standard error.

SPDX-License-Identifier: Apache-2.0
"""

import ctypes
import os
import sys
import threading
import time

import numpy as np

COUNT = int(sys.argv[2])
LIBC = ctypes.CDLL("libc.so.6")
kept = []


def resident():
    with open("/proc/self/smaps_rollup") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("Rss:"))


def say_trim():
    pid = os.fork()
    if not pid:
        resident()
        before = resident()
        LIBC.malloc_trim(0)
        print("trim before=%d after=%d" % (before, resident()), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)


def threads():
    together = threading.Barrier(6)

    def work():
        together.wait()
        arrays = [np.ones(500) for _ in range(COUNT)]  # ARRAYS
        together.wait()  # each has its own arena
        kept.append(np.ones(500))  # RESULT
        del arrays

    workers = [threading.Thread(target=work) for _ in range(6)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    return sum(a.nbytes for a in kept)


def top():
    del kept[:]
    first = np.ones(20 << 17)
    del first  # from now on blocks up to this size come from the heap
    large = [np.ones(4 << 17) for _ in range(COUNT)]  # LARGE
    above = max(a.ctypes.data for a in large)
    small = []
    for _ in range(200):  # large ones with mappings of their own lie above for ever
        small.append(np.ones(2000))  # SURVIVOR
        if small[-1].ctypes.data > above:
            break
    kept.append(small[-1])
    del small, large
    return kept[0].nbytes


def words():
    many = [str(i) + "abcdefgh" for i in range(COUNT)]  # WORDS
    kept.extend(many[::3000])
    del many
    sys._debugmallocstats()
    return sum(sys.getsizeof(word) for word in kept)


def large():
    kept.append(np.empty(COUNT << 20, dtype=np.uint8))  # ASKED
    kept[0][: (COUNT << 20) // 10] = 1
    return (COUNT << 20) // 10


def objects():
    begin = time.monotonic()
    for i in range(COUNT):
        kept.append("a line of the log, number %d of this run" % i)  # OBJECT
        scratch = [float(i), str(i), [i]]  # OTHER
        if i % 1000 == 0:
            time.sleep(max(0, begin + 2 * i / COUNT - time.monotonic()))
    del scratch
    return sum(sys.getsizeof(text) for text in kept)


size = {"threads": threads, "top": top, "words": words, "large": large,
        "objects": objects}[sys.argv[1]]()
say_trim()
print("kept bytes=%d" % size, flush=True)
os._exit(0)
