"""A loop that a compiling interpreter compiles, of blocks that are made at one place.

Puts down one JSON line in the file argv[1], as python_points.py does, with the number of blocks:
{"size": BYTES, "count": N, "stack": [[file, function, line], ...]}. Prints 1 if the interpreter
compiles, 0 if it could but does not, nothing when it has no compiler.

SPDX-License-Identifier: Apache-2.0
"""
import ctypes
import json
import sys
import traceback

SIZE = 3000000
TURNS = 9000
libc = ctypes.PyDLL(None)
malloc = libc.malloc
malloc.argtypes = [ctypes.c_size_t]
malloc.restype = ctypes.c_void_p


def said():
    frame = sys._getframe(1)
    stack = [[f.filename, f.name, f.lineno] for f in traceback.extract_stack(frame)[::-1]]
    with open(sys.argv[1], "w") as out:
        json.dump({"size": SIZE, "count": TURNS, "stack": stack}, out)
        out.write("\n")


def inner(i):
    malloc(SIZE) and i or said()


def hot(turns):
    total = 0
    for i in range(turns):
        total += i
        inner(turns - 1 - i)
    return total


if __name__ == "__main__":
    hot(TURNS)
    if hasattr(sys, "_jit") and sys._jit.is_available():
        print(int(sys._jit.is_enabled()))
