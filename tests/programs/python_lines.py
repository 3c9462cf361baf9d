"""Allocates blocks of known sizes from known lines, and says what the interpreter knows of each.

One JSON line a block: {"size": BYTES, "count": N, "stack": [[file, function, line], ...]}, innermost
first, by traceback.extract_stack(). The request is at least BYTES and less than BYTES + 64. Half
of the blocks live to the end. Function names are qualified where the interpreter has such names
(3.11 and later). Runs on every Python from 3.8 on; imports nothing but the standard library.

SPDX-License-Identifier: Apache-2.0
"""
import asyncio
import contextlib
import functools
import importlib
import json
import os
import sys
import threading
import traceback

kept = []
counts = {}
stacks = {}


def note(size):
    """What traceback says of the callers, from the caller of block() inwards first."""
    frame = sys._getframe(1)
    names = []
    walk = frame
    while walk:
        names.append(getattr(walk.f_code, "co_qualname", walk.f_code.co_name))
        walk = walk.f_back
    said = traceback.extract_stack(frame)[::-1]
    stack = [[f.filename, name, f.lineno] for f, name in zip(said, names)]
    assert len(said) == len(names)
    assert stacks.setdefault(size, stack) == stack, size
    counts[size] = counts.get(size, 0) + 1


def block(size):
    made = bytearray(size); note(size)
    if counts[size] % 2:
        kept.append(made)


def recursive(depth, size):
    if depth:
        return recursive(depth - 1, size)
    return block(size)


def inner_generator(size):
    yield 1
    block(size)
    yield 2


def delegating(size):
    yield from inner_generator(size)


class Shape:
    block(5010000)

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        block(self.size)
        return self

    def __exit__(self, *_):
        block(self.size + 1000)

    def __lt__(self, other):
        block(5020000)
        return False

    @property
    def area(self):
        block(self.size + 2000)
        return 0

    @classmethod
    def of(cls, size):
        block(size)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **more):
        return function(
            *args,
            **more,
        )

    return wrapper


@decorated
def spread_over_lines(
    size,
):
    block(
        size
        +
        0
    )


async def leaf(size):
    await asyncio.sleep(0)
    block(size)


async def trunk(size):
    await leaf(size)


@contextlib.contextmanager
def managed(size):
    block(size)
    yield
    block(size + 1000)


def module_in(folder):
    with open(os.path.join(folder, "made_module.py"), "w", encoding="utf-8") as f:
        f.write("def go(block):\n\n    block(5400000)\n\n\nimport __main__\n__main__.block(5410000)\n")
    sys.path.insert(0, folder)
    module = importlib.import_module("made_module")
    module.go(block)


def far_down():
    try:
        raise ValueError
    except ValueError:
        block(5500000)
    finally:
        block(5501000)
    source = "\n" * 70000 + "block(5510000)\n"
    exec(compile(source, "<far down>", "exec"), {"block": block})
    exec(compile("def größe(b):\n b(5520000)\ngröße(b)\n", "größe.py", "exec"), {"b": block})


def main():
    for _ in range(4):
        block(5100000)
    recursive(20, 5110000)
    recursive(50, 5120000)
    list(delegating(5130000))
    [block(size) for size in (5140000, 5140000)]
    {block(size) for size in (5150000,)}
    sorted([Shape(0), Shape(1)])
    with Shape(5200000) as shape:
        shape.area
    Shape.of(5210000)
    spread_over_lines(5220000)
    (lambda size: block(size))(5230000)
    list(map(block, [5240000]))
    functools.partial(block, 5250000)()
    asyncio.run(trunk(5260000))
    with managed(5270000):
        pass
    for target, size in ((block, 5300000), (functools.partial(recursive, 3), 5310000)):
        thread = threading.Thread(target=target, args=(size,))
        thread.start()
        thread.join()
    module_in(sys.argv[1])
    far_down()


main()
for number, where in stacks.items():
    print(json.dumps({"size": number, "count": counts[number], "stack": where}))
sys.stdout.flush()
os._exit(0)  # so that what is kept is alive at the end
