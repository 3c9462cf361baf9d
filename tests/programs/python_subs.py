"""Blocks made in sub-interpreters, and what traceback says there at the same point.

Each point makes one block of a size of its own with libc's malloc, called through ctypes with and
without the GIL, and appends a JSON line to the file argv[1], as python_points.py does: {"size": BYTES,
"stack": [[file, function, line], ...]}. First in the only thread, then in a thread of its own, at last
in the main interpreter again. Runs on every CPython from 3.8 on that has the module.

SPDX-License-Identifier: Apache-2.0
"""
import sys
import threading

try:
    import _interpreters as interpreters  # 3.13 and later
except ImportError:
    import _xxsubinterpreters as interpreters

SCRIPT = """
import ctypes, json, os, sys, traceback
libc, held = ctypes.CDLL(None), ctypes.PyDLL(None)
for library in (libc, held):
    library.malloc.argtypes = [ctypes.c_size_t]
    library.malloc.restype = ctypes.c_void_p

def said(size, frame):
    names, walk = [], frame
    while walk:
        names.append(getattr(walk.f_code, "co_qualname", walk.f_code.co_name))
        walk = walk.f_back
    summary = traceback.extract_stack(frame)[::-1]
    stack = [[f.filename, name, f.lineno] for f, name in zip(summary, names)]
    out = os.open(OUT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(out, (json.dumps({"size": size, "stack": stack}) + "\\n").encode())
    os.close(out)

def both(size):
    held.malloc(size), said(size, sys._getframe())
    libc.malloc(size + 1000), said(size + 1000, sys._getframe())

def outer(depth, size):
    if depth:
        return outer(depth - 1, size)
    both(size)

outer(5, SIZE)
"""


def script(size):
    """Its lines are at other numbers for each size, so that its stacks are told apart."""
    return "\n" * (size // 1000000) + SCRIPT.replace("OUT", repr(sys.argv[1])).replace("SIZE", str(size))


def create():
    if sys.version_info < (3, 12):
        return interpreters.create()
    if sys.version_info < (3, 13):  # ctypes can't be had in one with a GIL of its own
        return interpreters.create(isolated=False)
    return interpreters.create("isolated" if len(sys.argv) > 2 else "legacy")


def run(interpreter, size):
    failed = interpreters.run_string(interpreter, script(size))
    assert not failed, failed


def main():
    first, second = create(), create()
    run(first, 3000000)
    thread = threading.Thread(target=run, args=(second, 4000000))
    thread.start()
    thread.join()
    exec(compile(script(5000000), "<again>", "exec"), {})
    for interpreter in (first, second):
        interpreters.destroy(interpreter)


if __name__ == "__main__":
    main()
