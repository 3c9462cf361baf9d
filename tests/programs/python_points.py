"""Blocks made where a Python stack is hard to come by, and what traceback says at the same point.

Workers, threads, calls from C and code that gave up the GIL. Each point makes one block of a size
of its own with libc's malloc, called through ctypes, and the process that made it appends one JSON
line to the file argv[1]: {"size": BYTES, "stack": [[file, function, line], ...]}, innermost first,
by traceback.extract_stack() on the same source line. Function names are qualified where the
interpreter has such names (3.11 and later). Runs on every CPython from 3.7 on.

SPDX-License-Identifier: Apache-2.0
"""
import asyncio
import ctypes
import functools
import gc
import json
import multiprocessing
import os
import sys
import threading
import traceback

FIRST = 3000000
STEP = 1000
libc = ctypes.CDLL(None)  # gives up the GIL for each call
held = ctypes.PyDLL(None)  # keeps it
for library in (libc, held):
    library.malloc.argtypes = [ctypes.c_size_t]
    library.malloc.restype = ctypes.c_void_p
next_size = FIRST
lock = threading.Lock()


def size_for(points):
    """A size that no other point has; a worker takes its own before it starts."""
    global next_size
    with lock:
        size = next_size
        next_size += points * STEP
    return size


def said(size, frame):
    names = []
    walk = frame
    while walk:
        names.append(getattr(walk.f_code, "co_qualname", walk.f_code.co_name))
        walk = walk.f_back
    summary = traceback.extract_stack(frame)[::-1]
    assert len(summary) == len(names)
    stack = [[f.filename, name, f.lineno] for f, name in zip(summary, names)]
    line = json.dumps({"size": size, "stack": stack}) + "\n"
    out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(out, line.encode())
    os.close(out)


def point(size):
    libc.malloc(size), said(size, sys._getframe())


def point_with_gil(size):
    held.malloc(size), said(size, sys._getframe())


def recursive(depth, then, size):
    if depth:
        return recursive(depth - 1, then, size)
    return then(size)


def generator(size):
    yield point(size)


def delegating(size):
    yield from generator(size)


async def awaited(size):
    await asyncio.sleep(0)
    point(size)


async def awaiting(size):
    await awaited(size)


class Ordered:
    def __init__(self, size):
        self.size = size

    def __lt__(self, other):
        point(size_for(1))
        return False


class Dying:
    def __init__(self, size):
        self.size = size
        self.myself = self  # only the collector gets it

    def __del__(self):
        point(self.size)


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@CALLBACK
def compare(a, b):
    point(size_for(1))
    return 0


def wrapped(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)
    return inner


@wrapped
def decorated(size):
    point(size)


def every_shape(size):
    """Twelve sizes from `size` on."""
    sizes = iter(range(size, size + 12 * STEP, STEP))
    point(next(sizes))
    point_with_gil(next(sizes))
    recursive(7, point, next(sizes))
    list(delegating(next(sizes)))
    [point(s) for s in [next(sizes)]]
    (lambda s: point(s))(next(sizes))
    decorated(next(sizes))
    sorted([3], key=lambda _: point(next(sizes)))
    list(map(point, [next(sizes)]))

    class Body:
        point(next(sizes))

    for _ in range(2):
        s = next(sizes)
        source = "\n" * (s // STEP % 9) + "def made_%d(p):\n    p(%d)\nmade_%d(point)\n" % (s, s, s)
        exec(compile(source, "<made %d>" % s, "exec"), {"point": point})


def fresh_code():
    """Code objects that come and go at the same addresses."""
    for i in range(60):
        s = size_for(1)
        source = "\n" * (i % 7) + "def fresh_%d(p):\n%s    p(%d)\nfresh_%d(point)\n" % (
            i, "\n" * (i % 5), s, i)
        exec(compile(source, "<fresh %d>" % (i % 3), "exec"), {"point": point})


def from_c():
    sorted([Ordered(1), Ordered(2)])
    Dying(size_for(1))
    gc.collect()
    array = (ctypes.c_int * 2)(2, 1)
    libc.qsort(array, ctypes.c_size_t(2), ctypes.c_size_t(4), compare)
    asyncio.new_event_loop().run_until_complete(awaiting(size_for(1)))
    recursive(200, point, size_for(1))


def threads(target, sizes):
    running = [threading.Thread(target=target, args=(s,)) for s in sizes]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def forked(target, *args):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        target(*args)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def in_worker(size):
    every_shape(size)
    threads(every_shape, [size + 12 * STEP])


def main():
    every_shape(size_for(12))
    fresh_code()
    from_c()
    threads(every_shape, [size_for(12) for _ in range(3)])
    forked(in_worker, size_for(24))
    forked(recursive, 5, in_worker, size_for(24))
    worker = multiprocessing.get_context("fork").Process(target=in_worker, args=(size_for(24),))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    every_shape(size_for(12))
    print(next_size)


if __name__ == "__main__":
    main()
