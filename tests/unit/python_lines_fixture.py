"""Prints the rows of python_lines_fixture.def for the interpreter that runs it.

SPDX-License-Identifier: Apache-2.0
"""

import dis
import sys
import types


def source():
    long = "\n".join("    x = x + %d if x else [x, %d]" % (i, i) for i in range(40))
    gap = "\n" * 300
    return '''def plain(a, b):
    total = 0
    for i in range(a):
        if i % 2:
            continue
        total += (i *
                  b +
                  len(
                      "x"))
    while total > 10:
        total -= 1
    return total

def guarded(x):
    try:
        with open(x) as f:
            return [line
                    for line in f
                    if line]
    except OSError as e:
        raise ValueError(
            x) from e
    finally:
        print(
            "done")

def far(x):
    y = x''' + gap + '''    z = (y,
''' + "\n" * 150 + '''         x)
    return z

def long(x):
''' + long + '''
    return x

def generator(n):
    while True:
        n = yield (n
                   + 1)
        yield from (k
                    for k in range(n))
'''


def codes(c):
    yield c
    for k in c.co_consts:
        if isinstance(k, types.CodeType):
            yield from codes(k)


v = sys.version_info
for c in codes(compile(source(), "fixture.py", "exec")):
    if v >= (3, 10):
        table = c.co_linetable
        kind = "MT_LINES_311" if v >= (3, 11) else "MT_LINES_310"
        want = []
        for start, end, line in c.co_lines():
            for off in range(start, end, 2):
                want.append((off, line or 0))
    else:
        table = c.co_lnotab
        kind = "MT_LINES_LNOTAB"
        starts = list(dis.findlinestarts(c))
        # as PyCode_Addr2Line: the line in force at each offset
        want = []
        for off in range(0, len(c.co_code), 2):
            line = c.co_firstlineno
            for s, l in starts:
                if s <= off:
                    line = l
            want.append((off, line))
    # only changes
    out, last = [], None
    for off, line in want:
        if line != last:
            out.append("%d:%d" % (off, line))
            last = line
    out.append("%d:end" % (want[-1][0] + 2))
    name = getattr(c, "co_qualname", c.co_name)
    print('PYTHON_LINES("%d.%d", "%s", %s, %d, "%s",\n\t     "%s")' % (
        v[0], v[1], name, kind, c.co_firstlineno, table.hex(), " ".join(out)))
