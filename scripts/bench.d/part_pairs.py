"""A C loop of malloc and free at a known native depth, in one thread and in two.

SPDX-License-Identifier: Apache-2.0
"""

import measure
import settings
import tools
from table import figure

DEPTHS = (10, 40, 80)
PEERS = ("heaptrack", "jemalloc", "jemalloc prof")
MODES = ("all", "folded", "sample", "dormant")


def loop(tool, depth, threads, cwd):
    """A case of the series: ns per pair of each thread, by wall and by CPU."""
    pairs = settings.PAIRS // 5 if tool == "heaptrack" else settings.PAIRS

    def one():
        done, _, left = tools.run(tool, [f"{settings.B}/bench/pairs", str(depth), str(threads),
                                         str(pairs)], cwd, count=True)
        wall, cpu = (float(x) for x in done.out.split()[:2])
        instructions = done.instructions / pairs / threads if done.instructions else None
        return {"wall": wall, "cpu": cpu, "instructions": instructions,
                "bytes": left / (2 * pairs * threads)}
    return one


def added(key):
    def difference(of, base):
        return None if of[key] is None or base[key] is None else of[key] - base[key]
    return difference


def key_of(tool, depth, threads):
    if tool in ("all", "folded") and depth == 40 and threads == 1:
        return "pairs.added"
    return None


def cost_rows(series, depth, threads, names):
    what = f"malloc+free, depth {depth}, {threads} thread{'s' if threads > 1 else ''}"
    rows = [figure("pairs", f"{what}: CPU of a pair", "untraced", "ns",
                   series.values((depth, threads, "untraced"), lambda r: r["cpu"]))]
    for tool in names:
        case, base = (depth, threads, tool), (depth, threads, "untraced")
        if tool == "jemalloc prof":
            base = (depth, threads, "jemalloc")
        note = series.why.get(case, "")
        if not note and base[2] != "untraced":
            note = "against jemalloc without profiling"
        rows.append(figure("pairs", f"{what}: CPU added", tool, "ns",
                           series.pairs(case, base, added("cpu")), key_of(tool, depth, threads), note))
        counted = series.pairs(case, base, added("instructions"))
        if counted:
            rows.append(figure("pairs", f"{what}: instructions added", tool, "", counted))
    return rows


def call_rows(series):
    """One call is half a pair."""
    rows = []
    for tool in ("sample", "dormant"):
        values = series.pairs((40, 1, tool), (40, 1, "untraced"), added("cpu"))
        rows.append(figure("pairs", "one call, depth 40, 1 thread: CPU added", tool, "ns",
                           [v / 2 for v in values], f"call.{tool}",
                           series.why.get((40, 1, tool), "")))
    return rows


def scaling_rows(series, names):
    """Wall time of a pair alone, over its wall time beside a second thread; then over untraced's."""
    rows = []
    for depth in DEPTHS:
        for tool in names:
            values = []
            for r in series.rounds:
                need = [(depth, n, t) for n in (1, 2) for t in (tool, "untraced")]
                if all(k in r for k in need):
                    one, base_one, two, base_two = (r[k]["wall"] for k in need)
                    values.append((one / two) / (base_one / base_two))
            rows.append(figure("pairs", f"scaling to 2 threads, depth {depth}, over untraced's own",
                               tool, "", values, "pairs.scaling" if tool in ("all", "folded") else None,
                               series.why.get((depth, 2, tool), ""), ratio=True))
    return rows


def size_rows(series, names):
    rows = []
    for tool in names:
        rows.append(figure("pairs", "trace, depth 40, 1 thread: bytes per event", tool, "B",
                           series.values((40, 1, tool), lambda r: r["bytes"]),
                           "size.all" if tool == "all" else None, series.why.get((40, 1, tool), "")))
    return rows


def measure_part(seconds):
    cases, few = {}, set()
    with measure.Folder() as cwd:
        for depth in DEPTHS:
            for threads in (1, 2):
                for tool in ("untraced", *MODES, *PEERS):
                    if tool in PEERS and depth != 40:
                        continue
                    cases[(depth, threads, tool)] = loop(tool, depth, threads, cwd)
                    if tool in PEERS:
                        few.add((depth, threads, tool))
        series = measure.Series(cases, seconds, few)
    rows = []
    for depth in DEPTHS:
        for threads in (1, 2):
            peers = PEERS if depth == 40 else ()
            rows += cost_rows(series, depth, threads, ("all", "folded", *peers))
    rows += call_rows(series)
    rows += scaling_rows(series, ("all", "folded"))
    rows += size_rows(series, ("all", "folded", "heaptrack"))
    return rows
