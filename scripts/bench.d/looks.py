"""Looks at a forked child's pages for copy-on-write: their CPU time by what the child does, beside
the kernel's own part. For part_walks.py.

SPDX-License-Identifier: Apache-2.0
"""

import json
import statistics
import subprocess
import sys

import measure
import settings
import tools
from table import figure

MIB = 1024 if settings.FULL else 512
PHASE = 4 if settings.FULL else 1.5  # seconds
GIB = 1 << 30
START, INTERVAL, EXIT = 0, 1, 2  # SCAN.reason
NONE = 2  # SCAN.scope
KINDS = {"scattered": "4 KiB pages as they come", "contiguous": "pages of huge pages that were split"}
PHASES = ("few", "many", "new", "none")
ROWS = {
    "first": "the first look at a child",
    "none": "a look at a child of which nothing has changed",
    "few": "a look at a child that copies 200 pages a second",
    "new": "a look at a child that has copied all and uses new memory",
    "many": "a look at a child in the middle of a blow-up",
    "last": "the last look, at all mappings",
}


def looks_of(trace, faults):
    """CPU ns of the looks the child made at itself, by row. Of a phase the looks after its first: that
    one still finds what was before."""
    done = subprocess.run([sys.executable, f"{settings.ROOT}/scripts/decode.py", trace],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    scans, costs, seen = {}, {row: [] for row in ROWS}, set()
    for line in done.stdout.splitlines():
        if '"SCAN' not in line:
            continue
        record = json.loads(line)
        key = record["proc"], record["id"]
        if record["record"] == "SCAN":
            if record["proc"] == 2 and not record["pid"]:
                scans[key] = record
            continue
        scan = scans.get(key)
        if not scan or not record["complete"]:
            continue
        if scan["reason"] == START:
            costs["first"].append(record["cpu_ns"])
        elif scan["reason"] == EXIT:
            costs["last"].append(record["cpu_ns"])
        elif scan["reason"] == INTERVAL and scan["scope"]:
            phase = sum(scan["minflt"] - 1 > f for f in faults[:3])
            name = PHASES[phase]
            if phase in seen and (scan["scope"] == NONE) == (name == "none"):
                costs[name].append(record["cpu_ns"])
            seen.add(phase)
    return costs


def looked(kind, cwd):
    def one():
        command = [f"{settings.B}/bench/looks", str(MIB), str(PHASE), kind]
        done, trace, _ = tools.run("walks", command, cwd)
        said = json.loads(done.out)
        costs = looks_of(trace, said["faults"])
        scale = GIB / said["bytes"] / 1e6
        row = {name: statistics.median(c) * scale for name, c in costs.items() if c}
        row["bare"] = said["bare_first"] * scale
        row["copied"] = said["bare_last"] * scale
        return row
    return one


def rows(seconds):
    with measure.Folder() as cwd:
        series = measure.Series({kind: looked(kind, cwd) for kind in KINDS}, seconds)
    out = []
    for kind, text in KINDS.items():
        why = series.why.get(kind, "")
        for name, what in (("bare", "when all is shared"), ("copied", "when all is copied")):
            out.append(figure("walks", f"{text}: bare read of pagemap by a child, {what}, CPU per GiB",
                              "untraced", "ms", series.values(kind, lambda r, n=name: r[n]),
                              note=why or "the kernel's part of reading each page"))
        for name, what in ROWS.items():
            out.append(figure("walks", f"{text}: {what}, CPU per GiB", "walks", "ms",
                              series.values(kind, lambda r, n=name: r.get(n)),
                              "walks.cpu", why))
    return out
