"""C++ exceptions thrown and caught ten frames deep in a library that Python has loaded.

Each throw makes and drops one block, which the shim records: what it adds may be that, and no more.
"libunwind" is what a shim that depends on it does to every Python program.

SPDX-License-Identifier: Apache-2.0
"""

import glob

import measure
import settings
import tools
from table import figure

COUNT = 20000
SCRIPT = """import ctypes, sys
cost = ctypes.CDLL(sys.argv[1]).throws_cost
cost.restype = ctypes.c_double
cost.argtypes = [ctypes.c_int, ctypes.c_long]
cost(10, 100)
print(cost(10, int(sys.argv[2])))
"""


def throw(tool, cwd):
    count = COUNT // 10 if tool == "libunwind" else COUNT

    def one():
        command = [settings.PYTHON, f"{cwd}/throw.py", f"{settings.B}/bench/throws.so", str(count)]
        if tool == "libunwind":
            found = glob.glob("/usr/lib/*/libunwind.so.8")
            if not found:
                raise measure.Failed("no libunwind here")
            return float(measure.run(command, {"LD_PRELOAD": found[0]}, cwd).out.split()[-1])
        return float(tools.run(tool, command, cwd)[0].out.split()[-1])
    return one


def measure_part(seconds):
    tools_run = ("untraced", "all", "folded", "sample", "libunwind")
    with measure.Folder() as cwd:
        with open(f"{cwd}/throw.py", "w", encoding="utf-8") as f:
            f.write(SCRIPT)
        series = measure.Series({t: throw(t, cwd) for t in tools_run}, seconds, ("libunwind",))
    rows = [figure("throws", "C++ throw and catch, 10 frames, under Python: CPU", "untraced", "ns",
                   series.values("untraced", lambda r: r))]
    for tool in tools_run[1:]:
        rows.append(figure("throws", "C++ throw and catch: CPU added", tool, "ns",
                           series.pairs(tool, "untraced", lambda a, b: a - b), None,
                           series.why.get(tool, "")))
    return rows
