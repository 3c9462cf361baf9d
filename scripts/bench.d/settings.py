"""What can be set from outside, and where things are.

SPDX-License-Identifier: Apache-2.0
"""

import glob
import os
import shutil

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
B = os.path.abspath(os.environ.get("B", os.path.join(ROOT, "build")))
SHIM = os.path.abspath(os.environ.get("SHIM", f"{B}/libmemtrace.so"))
REPORT = os.path.abspath(os.environ.get("REPORT", f"{B}/memtrace-report"))


def number(name, default):
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value <= 0:
        raise SystemExit(f"bench: {name}={text}: not a number above 0")
    return value


FULL = os.environ.get("FULL", "") not in ("", "0")
ROUNDS = int(number("ROUNDS", 20))  # of each series, while its time lasts
PEER_ROUNDS = int(number("PEER_ROUNDS", 3))  # slower tools join the first rounds only
MINUTES = number("MINUTES", 60 if FULL else 12)  # for all parts chosen
PAIRS = int(number("PAIRS", 1_000_000))  # malloc/free pairs of a thread and run
OBJECTS = int(number("OBJECTS", 1_000_000))  # Python objects of a run
EPOCHS = int(number("EPOCHS", 11 if FULL else 7))  # of the pinned training run
STEPS = int(number("STEPS", 500 if FULL else 200))  # of an epoch of it
EVENTS = int(number("EVENTS", 100_000_000))  # in the trace that the analyzer is timed on
WRITE_GB = number("WRITE_GB", 5 if FULL else 1)  # written and fsynced beside the stall test
THREADS = int(number("THREADS", 1_000_000 if FULL else 50_000))
HANG_S = number("HANG_S", 30)  # after so long a run under a peer is ended
DIR = os.environ.get("BENCH_DIR")  # where traces are written; default: the system's temporary folder


def first(pattern):
    found = sorted(glob.glob(pattern))
    return found[0] if found else None


PYTHON = first(f"{ROOT}/build/venv/bin/python") or shutil.which("python3")
MEMRAY = first(f"{ROOT}/build/memray-venv/bin/memray") or shutil.which("memray")
HEAPTRACK = first("/usr/lib/heaptrack/libheaptrack_preload.so") or \
    first("/usr/lib/*/heaptrack/libheaptrack_preload.so")
JEMALLOC = first("/usr/lib/*/libjemalloc.so.2") or first("/usr/lib64/libjemalloc.so.2")
PERF = shutil.which("perf")
FINCORE = shutil.which("fincore")
