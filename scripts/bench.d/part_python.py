"""Python objects made and dropped at Python depth 20.

SPDX-License-Identifier: Apache-2.0
"""

import json

import measure
import settings
import tools
from table import figure

BLOCKS = ("untraced", "all", "all, python=off", "folded", "memray", "memray native")
OBJECTS = ("untraced", "objects", "objects, folded", "memray objects")


def churn(tool, kind, cwd):
    count = settings.OBJECTS // (10 if tool.startswith("memray") else 1)

    def one():
        done, _, left = tools.run(tool, [settings.PYTHON, f"{settings.ROOT}/tests/bench/churn.py",
                                         kind, str(count)], cwd)
        figures = json.loads(done.out.splitlines()[-1])
        return {"cpu": figures["cpu"], "bytes": left / (2 * count)}
    return one


def added(of, base):
    return of["cpu"] - base["cpu"]


def rows_of(series, kind, what, names, base, keys):
    rows = []
    for tool in names:
        case = (kind, tool)
        rows.append(figure("python", what, tool, "ns",
                           series.pairs(case, (kind, base), added), keys.get(tool),
                           series.why.get(case, "")))
    return rows


def measure_part(seconds):
    with measure.Folder() as cwd:
        cases = {(kind, tool): churn(tool, kind, cwd)
                 for kind, names in (("blocks", BLOCKS), ("objects", OBJECTS)) for tool in names}
        series = measure.Series(cases, seconds, [c for c in cases if c[1].startswith("memray")])
    rows = [figure("python", "block of 600 bytes made and dropped: CPU", "untraced", "ns",
                   series.values(("blocks", "untraced"), lambda r: r["cpu"]))]
    rows += rows_of(series, "blocks", "block made and dropped: CPU added", BLOCKS[1:], "untraced", {})
    rows += rows_of(series, "blocks", "Python frames, depth 20: CPU added over python=off", ("all",),
                    "all, python=off", {"all": "python.frames"})
    rows.append(figure("python", "small object made and dropped: CPU", "untraced", "ns",
                       series.values(("objects", "untraced"), lambda r: r["cpu"])))
    rows += rows_of(series, "objects", "small object made and dropped: CPU added", OBJECTS[1:],
                    "untraced", {"objects": "python.objects", "objects, folded": "python.objects"})
    rows.append(figure("python", "objects mode: bytes per event", "objects", "B",
                       series.values(("objects", "objects"), lambda r: r["bytes"]),
                       None, series.why.get(("objects", "objects"), "")))
    return rows
