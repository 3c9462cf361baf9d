"""Single allocations while another process writes and fsyncs to the same file system.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import signal
import subprocess
import sys

import measure
import settings
import tools
from table import figure

TOOLS = ("untraced", "all", "folded")
RATE = 1_000_000  # pairs a second: as much as a training run that allocates heavily
WRITER = """
import os, sys
path, left = sys.argv[1], int(float(sys.argv[2]) * 1e9)
piece = os.urandom(1 << 20) * 16
while True:
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    for i in range(max(1, left // len(piece))):
        os.write(fd, piece)
        if i % 16 == 15:
            os.fsync(fd)
    os.fsync(fd)
    os.close(fd)
    if len(sys.argv) < 4:
        break
"""


def seconds_to_write(cwd):
    """How long the writer needs alone, which is how long each run shall last."""
    done = measure.run([sys.executable, "-c", WRITER, f"{cwd}/written", str(settings.WRITE_GB)], {},
                       cwd, 900)
    return done.wall


def beside(tool, seconds, cwd):
    def one():
        writer = subprocess.Popen([sys.executable, "-c", WRITER, f"{cwd}/written",
                                   str(settings.WRITE_GB), "for ever"], start_new_session=True)
        try:
            done, _, _ = tools.run(tool, [f"{settings.B}/bench/stalls", str(RATE), f"{seconds:.1f}"],
                                   cwd, limit=seconds + 60)
        finally:
            os.killpg(writer.pid, signal.SIGKILL)
            writer.wait()
        return json.loads(done.out)
    return one


def measure_part(seconds):
    with measure.Folder() as cwd:
        each = seconds_to_write(cwd)
        if not settings.FULL:
            each = min(each, max(2.0, (seconds - each) / 20))
        series = measure.Series({t: beside(t, each, cwd) for t in TOOLS}, seconds - each)
    rows = []
    for tool in TOOLS:
        note = series.why.get(tool, "") or \
            f"{settings.WRITE_GB:g} GB written and fsynced again and again; runs of {each:.1f} s"
        for name, what in (("p9999", "p99.99"), ("max", "longest")):
            rows.append(figure("stalls", f"one malloc, 1 M a second, beside the writer: {what}", tool,
                               "ms", series.values(tool, lambda r: r[name] / 1e6), note=note))
            if tool != "untraced":
                rows.append(figure(
                    "stalls", f"one malloc, 1 M a second, beside the writer: {what} added", tool, "ms",
                    series.pairs(tool, "untraced", lambda a, b: (a[name] - b[name]) / 1e6),
                    "stalls.p9999" if name == "p9999" else None, series.why.get(tool, "")))
    return rows
