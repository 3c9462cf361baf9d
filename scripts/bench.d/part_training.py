"""The training runs of tests/programs/train_pinned.py: steps, CPU, the shim's memory, the trace's growth.

The steady part is what lies between the program's "@steady" and "@end", where it stands still to be
looked at: every process's private memory by /proc/PID/smaps, the trace's committed bytes.

The shim's memory is a difference: anonymous memory of the traced main process (all of it: it has
forked, and what it shares with its workers counts as well), or anonymous private dirty memory of a
worker, less the same of the untraced run of the round. The trace's mapped chunks are pages of a
file, not anonymous; they are the row of the page cache.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import json
import os
import time

import measure
import settings
import tools
import tracefile
from part_analyzer import report
from table import Row, figure

TOOLS = {
    "pinned": ("untraced", "all", "folded", "sample") + (("objects", "objects, folded")
                                                         if settings.FULL else ()),
    "ordinary": ("untraced", "all", "folded"),
}
PEERS = {"pinned": ("memray", "memray native", "heaptrack"), "ordinary": ()}
FIRST_MIB, BYTES_PER_STACK = 16, 100
REPORTS = 6 if settings.FULL else 3


def anonymous(pid):
    """(all, private dirty) bytes of a process's anonymous mappings."""
    everything = private = 0
    file_backed = True
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as f:
        for line in f:
            words = line.split()
            if not words[0].endswith(":"):
                file_backed = len(words) > 5 and words[5].startswith("/")
            elif words[0] == "Anonymous:":
                everything += int(words[1]) * 1024
            elif words[0] == "Private_Dirty:" and not file_backed:
                private += int(words[1]) * 1024
    return everything, private


def children(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="utf-8") as f:
            found += [int(p) for p in f.read().split()]
    return found


def snapshot(pid, trace):
    taken = {"first": anonymous(pid)[0], "workers": sorted(anonymous(p)[1] for p in children(pid))}
    if trace and os.path.exists(trace):
        taken["used"] = tracefile.Trace(trace).used
        taken["cached"] = tracefile.cached(trace)
    return taken


def train(tool, kind, cwd):
    """A case: the program's own figures and a snapshot at both ends of its steady part."""
    size = [str(settings.EPOCHS), str(settings.STEPS)] if kind == "pinned" else []

    def one():
        taken = {}

        def look(point, pid):
            taken[point] = snapshot(pid, f"{cwd}/trace.bin" if tool in tools.MODES else None)
        peer = tool in PEERS[kind]
        done, trace, left = tools.run(
            tool, [settings.PYTHON, f"{settings.ROOT}/tests/programs/train_pinned.py", kind, *size],
            cwd, limit=300, at=None if peer else look)
        figures = json.loads(done.out.splitlines()[-1])
        figures.update(total_cpu=done.cpu, left=left, **taken)
        return figures
    return one


class Facts:
    """Of one recording with every event listed: what the analyzer counts in the steady part."""

    def __init__(self, kind, cwd):
        train("all", kind, cwd)()
        trace = f"{cwd}/trace.bin"
        steady = self.report(trace, cwd, ["--from", "@steady", "--to", "@end"])
        main = [p for p in steady["processes"] if p["role"] == "main"][0]
        self.events = main["allocations"] + main["frees"]
        self.tree_events = steady["trace"]["events"]
        self.stacks = self.count_stacks(trace, cwd)
        self.reports = [report(trace, cwd) for _ in range(REPORTS)]

    @staticmethod
    def report(trace, cwd, options):
        done = measure.run([settings.REPORT, "--json", "--no-symbols", "--no-progress", *options, trace],
                           {}, cwd, 120)
        return json.loads(done.out)

    @staticmethod
    def count_stacks(trace, cwd):
        """Distinct native and Python stacks: one record each."""
        done = measure.run(["sh", "-c", '"$0" dump --no-progress "$1" | grep -cE "^ *[0-9.]+ +[0-9/]+ +(py)?node "',
                            settings.REPORT, trace], {}, cwd, 120)
        return int(done.out)


def step_rate(r):
    return r["steps"] / r["seconds"]


def speed_rows(series, kind, facts):
    rows = [figure("training", f"{kind}: steps per second", "untraced", "1/s",
                   series.values("untraced", step_rate))]
    if facts:
        rows.append(figure("training", f"{kind}: malloc events of the main process per second",
                           "untraced", "k/s", series.values("untraced", lambda r: facts.events /
                                                            r["seconds"] / 1000),
                           "training.rate" if kind == "pinned" else None,
                           "events counted in a traced run, seconds of the untraced"))
    for tool in TOOLS[kind][1:] + PEERS[kind]:
        note = series.why.get(tool, "")
        rows.append(figure("training", f"{kind}: steps per second, over untraced", tool, "x",
                           series.pairs(tool, "untraced", lambda a, b: step_rate(a) / step_rate(b)),
                           steps_key(kind, tool), note, ratio=True))
        rows.append(figure("training", f"{kind}: CPU of the steady part, main process", tool, "x",
                           series.pairs(tool, "untraced", lambda a, b: a["cpu"] / b["cpu"]),
                           "training.cpu" if tool in ("all", "folded") else None, note, ratio=True))
        rows.append(figure("training", f"{kind}: CPU of the whole run, all processes", tool, "x",
                           series.pairs(tool, "untraced", lambda a, b: a["total_cpu"] / b["total_cpu"]),
                           note=note, ratio=True))
    return rows


def steps_key(kind, tool):
    if tool in ("all", "folded"):
        return "training.steps" if kind == "pinned" else "ordinary.steps"
    return "sample.steps" if tool == "sample" else None


def pair_rows(series, kind, facts):
    """What a malloc+free pair of a real step costs: added time of the step over its pairs."""
    rows = []
    for tool in ("all", "folded"):
        for clock in ("seconds", "cpu"):
            values = series.pairs(tool, "untraced",
                                  lambda a, b: (a[clock] - b[clock]) * 1e9 / (facts.events / 2))
            rows.append(figure("training", f"{kind}: added per malloc+free pair of a step, "
                               f"{'wall' if clock == 'seconds' else 'CPU'}", tool, "ns", values,
                               "training.pair" if clock == "seconds" else None,
                               series.why.get(tool, "")))
    return rows


def growth(r):
    return r["end"]["used"] - r["steady"]["used"]


def size_rows(series, kind, facts):
    rows = []
    for tool in ("all", "folded"):
        note = series.why.get(tool, "")
        rows.append(figure("trace", f"{kind}: growth after the first epoch, per event", tool, "B",
                           series.values(tool, lambda r: growth(r) / facts.tree_events),
                           f"size.{tool}", note))
        rows.append(figure("trace", f"{kind}: growth after the first epoch, per second", tool, "KB/s",
                           series.values(tool, lambda r: growth(r) / 1000 / r["seconds"]),
                           "size.folded.speed" if tool == "folded" else None, note))
    return rows


def report_rows(kind, reports):
    """The same trace read: many stacks and symbols, few events for each."""
    what = f"{kind}, whole trace of {reports[0]['events'] / 1e6:.1f} M events"
    return [figure("analyzer", f"{what}: events per CPU second", "all", "M/s",
                   [r["events"] / r["cpu"] / 1e6 for r in reports], "analyzer.speed"),
            figure("analyzer", f"{what}: peak memory", "all", "MiB",
                   [r["rss"] / (1 << 20) for r in reports])]


def memory_rows(series, kind, stacks):
    rows = []
    for tool in ("all", "folded", "sample"):
        note, mib = series.why.get(tool, ""), 1 << 20
        limit = FIRST_MIB + stacks * BYTES_PER_STACK / mib if stacks else FIRST_MIB
        rows.append(figure("memory", f"{kind}: shim memory, first process", tool, "MiB",
                           series.pairs(tool, "untraced",
                                        lambda a, b: a["end"]["first"] - b["end"]["first"]),
                           "memory.first", note or (f"{stacks:,} stacks" if stacks else ""),
                           scale=1 / mib, limit=limit))
        rows.append(figure("memory", f"{kind}: shim memory, each forked worker", tool, "MiB",
                           series.pairs(tool, "untraced", worker_memory), "memory.worker", note,
                           scale=1 / mib))
        rows.append(figure("memory", f"{kind}: trace in the page cache at the end", tool, "MiB",
                           series.values(tool, lambda r: r["end"].get("cached")), "memory.cache",
                           note or ("" if settings.FINCORE else "no fincore here"), scale=1 / mib))
    return rows


def worker_memory(traced, base):
    of, less = traced["end"]["workers"], base["end"]["workers"]
    if not of or len(of) != len(less):
        return None
    return (sum(of) - sum(less)) / len(of)


def measure_kind(kind, seconds):
    began = time.monotonic()
    with measure.Folder() as cwd:
        try:
            facts, why = Facts(kind, cwd), ""
        except (measure.Failed, ValueError, KeyError, IndexError) as e:
            facts, why = None, f"the events of a traced run could not be counted: {e}"
            measure.progress(f"    {why}")
        names = TOOLS[kind] + PEERS[kind]
        series = measure.Series({t: train(t, kind, cwd) for t in names}, seconds - (time.monotonic() - began),
                                PEERS[kind])
    rows = speed_rows(series, kind, facts)
    if not facts:
        return rows + [Row("training", f"{kind}: figures per event", "", "", None, note=why)]
    rows += size_rows(series, kind, facts)
    if kind == "pinned":
        rows += pair_rows(series, kind, facts)
        rows += memory_rows(series, kind, facts.stacks) + report_rows(kind, facts.reports)
    return rows


def measure_part(seconds):
    try:
        measure.run([settings.PYTHON, "-c", "import torch"], {}, "/", 120)
    except measure.Failed:
        return [Row("training", "training", "", "", None,
                    note="no PyTorch here (scripts/install-deps bench)")]
    return measure_kind("pinned", seconds * 0.68) + measure_kind("ordinary", seconds * 0.32)
