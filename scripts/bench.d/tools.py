"""The tools that are compared: how each is put before a command, and what it leaves behind.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import os
import re
import subprocess

import measure
import settings
import tracefile

# name -> the shim's variables, and what the trace must say for the figure to be one of this mode
MODES = {
    "all": ({"MEMTRACE_EVENTS": "all"}, {"mode": "full", "events": "all"}),
    "folded": ({"MEMTRACE_EVENTS": "folded"}, {"mode": "full", "events": "folded"}),
    "all, python=off": ({"MEMTRACE_EVENTS": "all", "MEMTRACE_PYTHON": "off"}, {"events": "all"}),
    "objects": ({"MEMTRACE_EVENTS": "all", "MEMTRACE_PYTHON": "objects"},
                {"events": "all", "python_mode": "objects"}),
    "objects, folded": ({"MEMTRACE_EVENTS": "folded", "MEMTRACE_PYTHON": "objects"},
                        {"events": "folded", "python_mode": "objects"}),
    "sample": ({"MEMTRACE_MODE": "sample"}, {"mode": "sample"}),
    "walks": ({"MEMTRACE_COW_INTERVAL": "0.2"}, {"mode": "full"}),
    "dormant": ({"MEMTRACE_MODE": "dormant"}, {}),
}
checked = set()  # modes whose trace was what it should be


def present(name):
    """None if the tool can be run here, else why not."""
    if name.startswith("memray") and not settings.MEMRAY:
        return "not installed (scripts/install-deps bench)"
    if name == "heaptrack" and not settings.HEAPTRACK:
        return "not installed"
    if name.startswith("jemalloc"):
        if not settings.JEMALLOC:
            return "not installed"
        with open(settings.JEMALLOC, "rb") as f:
            if name.endswith("prof") and b"prof_gdump" not in f.read():
                return "this build of jemalloc has no profiling"
    return None


def memray(name, command, cwd):
    options = ["-q", "-f", "-o", f"{cwd}/memray.out", "--follow-fork"]
    if name == "memray native":
        options.append("--native")
    if name == "memray objects":
        options.append("--trace-python-allocators")
    packages = glob.glob(f"{settings.ROOT}/build/venv/lib/python3*/site-packages")
    return [settings.MEMRAY, "run", *options, *command[1:]], {"PYTHONPATH": ":".join(packages)}


def peer(name, command, cwd):
    """The command and variables that run it under a peer. heaptrack: the recording alone."""
    if name.startswith("memray"):
        return memray(name, command, cwd)
    if name == "heaptrack":
        return command, {"LD_PRELOAD": settings.HEAPTRACK,
                         "DUMP_HEAPTRACK_OUTPUT": f"{cwd}/heaptrack.out"}
    env = {"LD_PRELOAD": settings.JEMALLOC}
    if name == "jemalloc prof":
        env["MALLOC_CONF"] = f"prof:true,lg_prof_sample:19,prof_prefix:{cwd}/jemalloc.out"
    return command, env


def clear(cwd):
    for pattern in ("trace.bin*", "memray.out*", "heaptrack.out*", "jemalloc.out*"):
        for path in glob.glob(f"{cwd}/{pattern}"):
            os.remove(path)


def offers_dormant():
    """A shim that is only off is cheap, and is not dormant: does the driver offer the mode?"""
    done = subprocess.run([f"{settings.B}/memtrace", "--help"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return re.search(r"^ *--mode .*\bdormant\b", done.stdout, re.MULTILINE) is not None


def check_mode(name, trace, said):
    """NotBuilt if the trace is not of the mode that was asked for."""
    if name in checked:
        return
    if name == "dormant":
        if os.path.exists(trace) and tracefile.Trace(trace).hot_bytes:
            raise measure.NotBuilt("not built: it recorded")
        if not offers_dormant():
            raise measure.NotBuilt("not built: memtrace run offers no such mode")
    elif not os.path.exists(trace):
        raise measure.Failed("no trace was written" + (": " + said if said else ""))
    else:
        facts = tracefile.facts(trace)
        for key, wanted in MODES[name][1].items():
            if facts.get(key) != wanted:
                raise measure.NotBuilt(f"not built: the trace says {key}={facts.get(key)}")
    checked.add(name)


def run(name, command, cwd, limit=120, at=None, count=False):
    """Runs command under the tool: (Run, path of the memtrace trace or None, bytes left behind)."""
    why = present(name)
    if why:
        raise measure.NotBuilt(why)
    clear(cwd)
    env, trace = {}, None
    if name in MODES:
        trace = f"{cwd}/trace.bin"
        env = dict(MODES[name][0], LD_PRELOAD=settings.SHIM, MEMTRACE_OUT=trace, MEMTRACE_QUIET="1")
    elif name != "untraced":
        command, env = peer(name, command, cwd)
        limit = min(limit, settings.HANG_S)
    done = measure.run(command, env, cwd, limit, at, count)
    if trace:
        check_mode(name, trace, "")
        trace = trace if os.path.exists(trace) else None
    left = sum(os.path.getsize(p) for g in ("trace.bin", "memray.out*", "heaptrack.out*")
               for p in glob.glob(f"{cwd}/{g}"))
    return done, trace, left
