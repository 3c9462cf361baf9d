"""Reading a large trace of the C loop.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os

import measure
import settings
import tools
import tracefile
from table import figure

DEPTH = 40


def record(tool, cwd):
    """A trace of EVENTS events by one thread, and how much of it the page cache holds at its end."""
    _, trace, _ = tools.run(tool, [f"{settings.B}/bench/pairs", str(DEPTH), "1",
                                   str(settings.EVENTS // 2)], cwd, limit=600)
    held = tracefile.cached(trace)
    kept = f"{cwd}/big-{tool}.bin"
    os.replace(trace, kept)
    return kept, held


def report(trace, cwd):
    """CPU seconds, wall seconds and peak memory of one report, and the events it found."""
    peak = [0]
    done = measure.run([settings.REPORT, "--json", "--no-progress", trace], {}, cwd, 600, peak=peak)
    return {"cpu": done.cpu, "wall": done.wall, "rss": peak[0],
            "events": json.loads(done.out)["trace"]["events"]}


def rows_of(series, tool, trace, what):
    size = os.path.getsize(trace)
    rows = [figure("analyzer", f"{what}: events per CPU second", tool, "M/s",
                   series.values(tool, lambda r: r["events"] / r["cpu"] / 1e6), "analyzer.speed",
                   series.why.get(tool, "") or f"{size / 1e6:.0f} MB"),
            figure("analyzer", f"{what}: report of 1 GiB, by this trace's rate", tool, "s",
                   series.values(tool, lambda r: r["wall"] * (1 << 30) / size), "analyzer.gib"),
            figure("analyzer", f"{what}: peak memory", tool, "MiB",
                   series.values(tool, lambda r: r["rss"] / (1 << 20)))]
    return rows


def measure_part(seconds):
    what = f"trace of {settings.EVENTS // 1_000_000} M events, depth {DEPTH}"
    with measure.Folder() as cwd:
        trace, held = record("all", cwd)
        series = measure.Series({"all": lambda: report(trace, cwd)}, seconds / 1.3, rounds=6)
        rows = rows_of(series, "all", trace, what)
    rows.append(figure("memory", f"{what}: in the page cache at its end", "all", "MiB",
                       [] if held is None else [held / (1 << 20)], "memory.cache",
                       "no fincore here" if held is None else ""))
    return rows
