"""Allocates blocks of known sizes at known places and says where: one JSON line, a list of
{"bytes": size of the block, "stack": [[file, line, function], ...]} with the innermost frame first.

Sizes are all different, and too large for CPython's own small-object allocator. What the
places are is asked from the interpreter itself. Runs on CPython 3.8 and later.

SPDX-License-Identifier: Apache-2.0
"""

import gc
import json
import os
import sys
import threading
import traceback

places = []
held = []
next_size = [50000]


def where():
    """Where the caller stands, in two ways that must agree; and a size nobody had before."""
    frame, stack = sys._getframe(1), []
    told = traceback.extract_stack(frame)
    while frame:
        code = frame.f_code
        stack.append([code.co_filename, frame.f_lineno, getattr(code, "co_qualname", code.co_name)])
        frame = frame.f_back
    assert [(s[0], s[1]) for s in stack] == [(t.filename, t.lineno) for t in reversed(told)]
    next_size[0] += 64
    places.append({"bytes": sys.getsizeof(b"") + next_size[0], "stack": stack})
    return next_size[0]


def nested(depth):
    if depth:
        nested(depth - 1)
    else:
        held.append(bytes(where()))


class Thing:
    def __del__(self):
        held.append(bytes(where()))


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
    thing = Thing()
    del thing
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
