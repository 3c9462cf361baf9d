"""Under which conditions a table was measured.

SPDX-License-Identifier: Apache-2.0
"""

import os
import platform
import re
import subprocess
import time

import measure
import settings


def said_by(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              cwd=settings.ROOT)
        return done.stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return None


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        found = re.search(r"model name\s*: (.*)", f.read())
    return found.group(1) if found else platform.machine()


def busy():
    """Ticks that all processors spent: in all, idle, and stolen by other guests of the host."""
    with open("/proc/stat", encoding="utf-8") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    return sum(fields), fields[3] + fields[4], fields[7]


def before():
    return {"load": os.getloadavg()[0], "busy": busy(), "children": os.times()}


def others(was):
    """The share of the processors' time that neither we nor idleness took."""
    ticks = os.sysconf("SC_CLK_TCK")
    total, idle, stolen = (b - a for a, b in zip(was["busy"], busy()))
    now, old = os.times(), was["children"]
    ours = sum(now[i] - old[i] for i in range(4)) * ticks
    return max(0.0, (total - idle - ours) / max(1, total)), stolen / max(1, total)


def versions():
    found = []
    python = said_by([settings.PYTHON, "-c", "import platform; print(platform.python_version())"])
    torch = said_by([settings.PYTHON, "-c", "import torch; print(torch.__version__)"])
    found.append(f"Python {python}" + (f", torch {torch}" if torch else ", no torch"))
    if settings.HEAPTRACK:
        found.append((said_by(["heaptrack", "--version"]) or "heaptrack") + " (recording alone)")
    if settings.MEMRAY:
        found.append(f"memray {said_by([settings.MEMRAY, '--version'])}")
    if settings.JEMALLOC:
        version = said_by(["dpkg-query", "-W", "-f", "${Version}", "libjemalloc2"])
        found.append(f"jemalloc {version or '(version unknown)'}")
    return ", ".join(found)


def after(was, parts, took):
    foreign, stolen = others(was)
    commit = said_by(["git", "describe", "--always", "--dirty"]) or "unknown"
    shim = "" if settings.SHIM == f"{settings.B}/libmemtrace.so" else ", SHIM of another build"
    counts = "counted" if measure.counts_instructions() else \
        "not counted (perf has no such counter here)"
    return [
        f"- {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, source {commit}{shim}, "
        f"parts: {' '.join(parts)}; {took / 60:.1f} minutes{', FULL=1' if settings.FULL else ''}",
        f"- {cpu_model()}, {len(os.sched_getaffinity(0))} CPUs, {platform.platform()}",
        f"- {versions()}",
        f"- load {was['load']:.1f} at the start; meanwhile others took {100 * foreign:.0f} % of the "
        f"processors' time, of it {100 * stolen:.0f} % stolen by the host"
        + ("; a busy machine: read ratios and CPU, not wall time" if foreign > 0.1 else ""),
        f"- up to {settings.ROUNDS} interleaved rounds ({settings.PEER_ROUNDS} of peers), fewer where "
        f"a part's time ran out: see n; instructions: {counts}",
    ]
