"""Walks over the pages of a process: their CPU time, and how long another thread's mmap waits.

SPDX-License-Identifier: Apache-2.0
"""

import json
import statistics
import subprocess
import sys

import looks
import measure
import settings
import tools
from table import figure

MIB = 1024 if settings.FULL else 512
LENGTH = 6  # seconds of a run
GIB = 1 << 30


def walk_costs(trace):
    """CPU ns per GiB of walks over nearly all of the data that leave nothing out: over all mappings."""
    done = subprocess.run([sys.executable, f"{settings.ROOT}/scripts/decode.py", trace],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pages, scopes, costs = {}, {}, []
    for line in done.stdout.splitlines():
        if '"SCAN' not in line and '"RANGE"' not in line:
            continue
        record = json.loads(line)
        key = record["proc"], record.get("scan", record.get("id"))
        if record["record"] == "SCAN":
            scopes[key] = record["scope"]
        elif record["record"] == "RANGE":
            pages[key] = pages.get(key, 0) + record["pages"]
        elif record["complete"] and scopes.get(key) == 0:
            size = pages.get(key, 0) * 4096
            if size > MIB * (1 << 20) * 0.9:
                costs.append(record["cpu_ns"] * GIB / size)
    return costs


def walked(tool, cwd):
    def one():
        done, trace, _ = tools.run(tool, [f"{settings.B}/bench/walks", str(MIB), str(LENGTH)], cwd)
        said = json.loads(done.out)
        said["bare"] = said["bare_ns"] * GIB / said["bytes"]
        if trace:
            costs = walk_costs(trace)
            if not costs:
                raise measure.Failed("no whole walk in the trace")
            said["cost"] = statistics.median(costs)
        return said
    return one


def measure_part(seconds):
    with measure.Folder() as cwd:
        series = measure.Series({t: walked(t, cwd) for t in ("untraced", "walks")}, seconds / 2)
    why = series.why.get("walks", "")
    what = f"walk over {MIB} MiB of 4 KiB pages, all mappings"
    rows = [
        figure("walks", f"{what}: bare read of pagemap, CPU per GiB", "untraced", "ms",
               series.values("untraced", lambda r: r["bare"] / 1e6),
               note="the kernel's part: reading each page can't cost less"),
        figure("walks", f"{what}: CPU per GiB", "walks", "ms",
               series.values("walks", lambda r: r["cost"] / 1e6), "walks.cpu", why),
        figure("walks", f"{what}: CPU over the bare read of the same run", "walks", "x",
               series.values("walks", lambda r: r["cost"] / r["bare"]), note=why),
    ]
    for name, text in (("p50", "p50"), ("p999", "p99.9"), ("max", "longest")):
        rows.append(figure("walks", f"another thread's mmap and munmap: {text}", "untraced", "ms",
                           series.values("untraced", lambda r: r["all"][name] / 1e6)))
        rows.append(figure("walks", f"another thread's mmap and munmap, during walks: {text}", "walks", "ms",
                           series.values("walks", lambda r: r["walks"][name] / 1e6), note=why))
        if name == "p999":
            rows.append(figure("walks", "another thread's mmap and munmap, during walks: p99.9 added",
                               "walks", "ms",
                               series.pairs("walks", "untraced",
                                            lambda a, b: (a["walks"][name] - b["all"][name]) / 1e6),
                               "walks.stall", why))
    return looks.rows(seconds / 2) + rows
