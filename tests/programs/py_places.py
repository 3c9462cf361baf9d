"""Allocates blocks of known sizes at known places and says where: one JSON line, a list of
{"bytes": size of the block, "stack": [[file, line, function], ...]} with the innermost frame first.

Sizes are all different, and too large for CPython's own small-object allocator. What the
places are is asked from the interpreter itself. Runs on CPython 3.8 and later.

SPDX-License-Identifier: Apache-2.0
"""

import functools
import gc
import json
import os
import sys
import threading
import traceback

places = []
held = []
next_size = [50000]


def where(lines_up=0):
    """Where the caller stands, in two ways that must agree; and a size nobody had before. The call
    that allocates begins `lines_up` lines above the line of this one."""
    frame, stack = sys._getframe(1), []
    told = traceback.extract_stack(frame)
    while frame:
        code = frame.f_code
        stack.append([code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name)])
        frame = frame.f_back
    assert [(s[0], s[1]) for s in stack] == [(t.filename, t.lineno) for t in reversed(told)]
    stack[0][1] -= lines_up
    next_size[0] += 64
    places.append({"bytes": sys.getsizeof(b"") + next_size[0], "stack": stack})
    return next_size[0]


def plain():
    held.append(bytes(where()))


def nested(depth):
    if depth:
        nested(depth - 1)
    else:
        held.append(bytes(where()))


class Thing:
    held.append(bytes(where()))

    def method(self):
        held.append(bytes(where()))

    @classmethod
    def of_class(cls):
        held.append(bytes(where()))

    @property
    def looked_up(self):
        held.append(bytes(where()))
        return 1

    def __del__(self):
        held.append(bytes(where()))


def generator():
    for _ in range(3):
        held.append(bytes(where()))
        yield 1


async def coroutine():
    held.append(bytes(where()))


def drive(awaitable):
    try:
        awaitable.send(None)
    except StopIteration:
        pass


def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        held.append(bytes(where()))
        return function(*args, **kwargs)

    return inner


@decorated
def wrapped():
    held.append(bytes(where()))


def over_several_lines():
    values = [
        1,
        bytes(where()),
        2,
    ]
    held.append(values[1])
    held.append(
        bytes(
            where(1)
        )
    )


def in_except():
    try:
        raise ValueError
    except ValueError:
        held.append(bytes(where()))
    finally:
        held.append(bytes(where()))


def far_down():
    # The line table needs more than one byte for this distance.
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    # .
    held.append(bytes(where()))
    for i in range(2): held.append(bytes(where())) if i else None


def from_c():
    sorted([3, 1, 2], key=lambda v: held.append(bytes(where())) or v)
    list(map(lambda v: held.append(bytes(where())), [1]))


def in_a_thread():
    thread = threading.Thread(target=nested, args=(3,))
    thread.start()
    thread.join()


def generated(count):
    """Code objects that come and go: their addresses are used again."""
    for i in range(count):
        space = {"held": held, "where": where}
        source = "\n" * (i % 50) + "def made_%d():\n    held.append(bytes(where()))\nmade_%d()" % (i, i)
        exec(compile(source, "<made %d>" % i, "exec"), space)
        space.clear()
        if i % 10 == 0:
            gc.collect()


def main():
    plain()
    plain()
    nested(0)
    nested(20)
    thing = Thing()
    thing.method()
    Thing.of_class()
    thing.looked_up
    del thing
    list(generator())
    drive(coroutine())
    wrapped()
    over_several_lines()
    in_except()
    far_down()
    from_c()
    [held.append(bytes(where())) for _ in range(2)]
    (lambda: held.append(bytes(where())))()
    eval("held.append(bytes(where()))")
    in_a_thread()
    generated(100)


held.append(bytes(where()))
main()
sys.stdout.write(json.dumps(places) + "\n")
sys.stdout.flush()
os._exit(0)
