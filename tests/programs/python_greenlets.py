"""Blocks made in greenlets, and what traceback says there at the same point.

A greenlet runs on a piece of the thread's stack that is copied away when it is left and copied back
when it goes on: the same addresses hold one stack after the other. Points and what is said of them
are python_points.py's: each makes one block of a size of its own, and appends a JSON line to the file
argv[1]. Many greenlets, which leave each other at different depths, from Python and inside of C
functions, in two threads, with generators, exceptions and ends at any point.

SPDX-License-Identifier: Apache-2.0
"""
import random
import threading

import greenlet
from python_points import STEP, held, point, point_with_gil, recursive, size_for


def churn():
    """Traffic, so that stacks are remembered and compared."""
    for _ in range(20):
        bytearray(700)
        held.free(held.malloc(5000))


def leave(back):
    churn()
    back.switch()
    churn()


def deeper(depth, work):
    if depth:
        return deeper(depth - 1, work)
    return work()


def worker(back, shape):
    for turn in range(4):
        point(size_for(1))
        if shape % 4 == 0:
            deeper(shape % 7, lambda: leave(back))
        elif shape % 4 == 1:
            sorted([3, 2, 1], key=lambda _: leave(back) or 0)  # the switch is made below C code
        elif shape % 4 == 2:
            for _ in (leave(back) for _ in range(2)):
                point_with_gil(size_for(1))
        else:
            try:
                deeper(turn, lambda: leave(back))
                raise ValueError
            except ValueError:
                recursive(turn, point, size_for(1))
        point(size_for(1))


def scheduler(count, seed):
    rng = random.Random(seed)
    here = greenlet.getcurrent()
    running = [greenlet.greenlet(worker) for _ in range(count)]
    for shape, g in enumerate(running):
        deeper(rng.randrange(6), lambda: g.switch(here, shape))
    while running:
        g = rng.choice(running)
        point(size_for(1))
        deeper(rng.randrange(9), g.switch)
        if rng.randrange(20) == 0:
            g.throw()  # GreenletExit, wherever it stands
        running = [g for g in running if not g.dead]


def main():
    held.free.argtypes = [held.malloc.restype]
    scheduler(12, 1)
    threads = [threading.Thread(target=scheduler, args=(8, seed)) for seed in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
