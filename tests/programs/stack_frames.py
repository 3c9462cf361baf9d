"""Allocates blocks of known sizes from known lines and prints the Python stack of each.

One line a block: size=BYTES stack=FUNCTION:LINE;FUNCTION:LINE;... innermost first, as the
interpreter itself tells it. The request is at least BYTES and less than BYTES + 64; all blocks
live to the end. FUNCTION is the qualified name where the interpreter has one (3.11 and later).

SPDX-License-Identifier: Apache-2.0
"""
import sys
import threading

kept = []


def here(size, skip=1):
    """Allocate one block and print the stack of the call, starting at the caller's caller."""
    frame = sys._getframe(skip)
    names = []
    while frame:
        code = frame.f_code
        names.append(f"{getattr(code, 'co_qualname', code.co_name)}:{frame.f_lineno}")
        frame = frame.f_back
    print(f"size={size} stack={';'.join(names)}", flush=True)


def block(size):
    kept.append(bytearray(size)); here(size)


def recursive(depth, size):
    if depth:
        return recursive(depth - 1, size)
    return block(size)


def generator(size):
    yield 1
    block(size)
    yield 2


class Method:
    def __init__(self, size):
        self.size = size
        block(size)

    def __lt__(self, other):
        block(self.size + 1000)
        return self.size < other.size

    @staticmethod
    def static(size):
        block(size)


def decorated(function):
    def wrapper(*args):
        return function(*args)
    return wrapper


@decorated
def wrapped(size):
    block(
        size
    )


def größe(size):
    block(size)


def main():
    block(5000000)
    recursive(10, 5010000)
    recursive(60, 5020000)
    list(generator(5030000))
    [block(size) for size in (5040000, 5041000)]
    sorted([Method(5050000), Method(5052000)])
    Method.static(5060000)
    wrapped(5070000)
    größe(5080000)
    (lambda size: block(size))(5090000)
    list(map(block, [5100000]))
    for i in range(3):
        source = "\n" * i + f"def made():\n    block({5110000 + i * 1000})\nmade()\n"
        exec(compile(source, f"<made-{i}>", "exec"), {"block": block})
    thread = threading.Thread(target=recursive, args=(3, 5120000))
    thread.start()
    thread.join()
    try:
        raise ValueError
    except ValueError:
        block(5130000)


main()
