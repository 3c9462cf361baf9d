"""A great many short threads: what one costs, and whether memory stays flat.

SPDX-License-Identifier: Apache-2.0
"""

import json

import measure
import settings
import tools
from table import figure

TOOLS = ("untraced", "all", "folded")


def storm(tool, cwd):
    def one():
        done, _, left = tools.run(tool, [f"{settings.B}/bench/storm", str(settings.THREADS)], cwd,
                                  limit=900)
        return dict(json.loads(done.out), left=left)
    return one


def measure_part(seconds):
    with measure.Folder() as cwd:
        series = measure.Series({t: storm(t, cwd) for t in TOOLS}, seconds,
                                rounds=3 if settings.FULL else None)
    rows, what = [], f"{settings.THREADS:,} short threads"
    for tool in TOOLS:
        note = series.why.get(tool, "")
        rows.append(figure("threads", f"{what}: RSS, all done less a tenth done", tool, "MiB",
                           series.values(tool, lambda r: (r["late"] - r["early"]) / 1024),
                           "threads.growth" if tool != "untraced" else None, note))
        if tool == "untraced":
            continue
        rows.append(figure("threads", f"{what}: CPU added to a thread of 16 pairs", tool, "us",
                           series.pairs(tool, "untraced", lambda a, b: (a["cpu"] - b["cpu"]) / 1000),
                           note=note))
        rows.append(figure("threads", f"{what}: trace", tool, "MB",
                           series.values(tool, lambda r: r["left"] / 1e6), note=note))
    return rows
