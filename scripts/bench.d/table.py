"""The one table: rows, the budgets beside them, and the three ways to show it.

SPDX-License-Identifier: Apache-2.0
"""

import stats

# key of a row -> (what must hold, limit, unit). Judged at the end of the 95 % interval that is worse.
BUDGETS = {
    "pairs.added": ("<=", 80, "ns"),
    "pairs.scaling": (">=", 0.95, ""),
    "call.sample": ("<=", 5, "ns"),
    "call.dormant": ("<=", 2, "ns"),
    "python.frames": ("<=", 30, "ns"),
    "python.objects": ("<=", 90, "ns"),
    "import.ratio": ("<=", 2, "x"),
    "import.size": ("<=", 25, "MB"),
    "training.rate": (">=", 300, "k/s"),
    "training.pair": ("<=", 140, "ns"),
    "training.steps": (">=", 0.95, "x"),
    "training.cpu": ("<=", 1.06, "x"),
    "ordinary.steps": (">=", 0.99, "x"),
    "sample.steps": (">=", 0.99, "x"),
    "size.all": ("<=", 6, "B"),
    "size.folded": ("<=", 0.05, "B"),
    "size.folded.speed": ("<=", 36, "KB/s"),
    "memory.first": ("<=", None, "MiB"),  # the limit depends on the stacks of the run
    "memory.worker": ("<=", 2, "MiB"),
    "memory.cache": ("<=", 64, "MiB"),
    "analyzer.speed": (">=", 25, "M/s"),
    "analyzer.gib": ("<=", 15, "s"),
    "stalls.p9999": ("<=", 1, "ms"),
    "detach.speed": ("<=", 1.01, "x"),
    "walks.cpu": ("<=", 5, "ms"),
    "walks.stall": ("<=", 1, "ms"),
    "threads.growth": ("<=", 1, "MiB"),  # "flat"
}


class Row:
    """One line. values: (median, low, high), or None where nothing was measured; then note says why."""

    def __init__(self, part, what, tool, unit, values, n=0, key=None, note="", limit=None):
        self.part, self.what, self.tool, self.unit = part, what, tool, unit
        self.value, self.low, self.high = values or (None, None, None)
        self.n, self.note = n, note
        self.op, self.limit, _ = BUDGETS.get(key, (None, None, None))
        if limit is not None:
            self.limit = limit

    def verdict(self):
        """within or missed, by the worse end of the interval; open: too few runs for an interval."""
        if self.limit is None:
            return ""
        if self.value is None:
            return "not measured"
        good = (lambda v: v <= self.limit) if self.op == "<=" else (lambda v: v >= self.limit)
        if self.low is None:
            return "missed" if not good(self.value) else "open"
        return "within" if good(self.high if self.op == "<=" else self.low) else "missed"

    def budget(self):
        if self.limit is None:
            return ""
        return f"{'≤' if self.op == '<=' else '≥'} {short(self.limit)} {self.unit}".rstrip()

    def cells(self):
        if self.value is None:
            return [self.what, self.tool, "–", "", "", self.budget(), self.verdict(), self.note]
        between = "" if self.low is None else f"{short(self.low)} to {short(self.high)}"
        return [self.what, self.tool, f"{short(self.value)} {self.unit}".rstrip(), between,
                str(self.n), self.budget(), self.verdict(), self.note]

    def as_json(self):
        return {"part": self.part, "what": self.what, "tool": self.tool, "unit": self.unit,
                "median": self.value, "low": self.low, "high": self.high, "n": self.n,
                "op": self.op, "limit": self.limit, "verdict": self.verdict() or None,
                "note": self.note}


HEAD = ["what", "tool", "median", "95 % interval", "n", "budget", "verdict", "note"]


def short(x):
    """Three digits are more than these machines give; close to 1, what is beside it counts."""
    if x == 0:
        return "0"
    if abs(x - 1) < 0.02:
        return f"{x:.3f}"
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    if abs(x) >= 100:
        return f"{x:.0f}"
    if abs(x) >= 10:
        return f"{x:.1f}"
    return f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.3g}"


def figure(part, what, tool, unit, values, key=None, note="", ratio=False, scale=1, limit=None):
    """A row of a list of values; an empty list makes a row that says why there is none."""
    found = stats.middle(values, ratio)
    if found:
        found = tuple(None if v is None else v * scale for v in found)
    return Row(part, what, tool, unit, found, len(values), key, note, limit)


def text(rows):
    lines, part = [], None
    cells = [HEAD] + [r.cells() for r in rows]
    wide = [max(len(c[i]) for c in cells) for i in range(len(HEAD) - 1)]

    def line(c):
        left = "  ".join(c[i].ljust(wide[i]) if i in (0, 1, 6) else c[i].rjust(wide[i])
                         for i in range(len(wide)))
        return f"{left}  {c[-1]}".rstrip()

    lines.append(line(HEAD))
    for row, c in zip(rows, cells[1:]):
        if row.part != part:
            part = row.part
            lines.append(f"-- {part}")
        lines.append(line(c))
    return "\n".join(lines)


def markdown(rows):
    lines = ["| part | " + " | ".join(HEAD) + " |", "|" + " --- |" * (len(HEAD) + 1)]
    for row in rows:
        cells = [c.replace("|", "\\|") for c in row.cells()]
        lines.append(f"| {row.part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
