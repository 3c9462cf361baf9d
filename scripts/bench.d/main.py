"""Chooses the parts, gives each its share of the time, prints the table.

SPDX-License-Identifier: Apache-2.0
"""

import importlib
import json
import os
import time
import traceback

import conditions
import document
import measure
import settings
import table

# name, share of the time, what it measures
PARTS = [
    ("pairs", 16, "a C loop of malloc and free"),
    ("python", 8, "Python objects made and dropped"),
    ("throws", 2, "C++ exceptions in a library that Python loaded"),
    ("import", 13, "import torch"),
    ("training", 44, "two training runs, shim memory, trace growth"),
    ("analyzer", 6, "reading a large trace"),
    ("detach", 10, "a program after it was attached to and detached from"),
    ("stalls", 7, "single allocations beside a busy disk"),
    ("walks", 5, "walks over the pages of a process"),
    ("threads", 3, "a great many short threads"),
]


def choose(words):
    known = [p[0] for p in PARTS]
    for word in words:
        if word not in known:
            raise SystemExit(f"bench: no part '{word}': {' '.join(known)}")
    return [p for p in PARTS if not words or p[0] in words]


def measure_one(name, seconds):
    try:
        return importlib.import_module("part_" + name).measure_part(seconds)
    except measure.Failed as e:
        return [table.Row(name, name, "", "", None, note=str(e))]
    except Exception as e:  # a fault of one part must not lose the others' figures
        traceback.print_exc()
        return [table.Row(name, name, "", "", None, note=f"bench failed: {type(e).__name__}: {e}")]


def main(words):
    target = None
    if words[:1] == ["--write"]:
        if len(words) < 2:
            raise SystemExit("bench: --write needs a file")
        target, words = words[1], words[2:]
        if not os.path.exists(target):
            raise SystemExit(f"bench: --write {target}: no such file")
    if any(w.startswith("-") for w in words):
        raise SystemExit("usage: bench [--write FILE] [PART ...]")
    parts = choose(words or os.environ.get("BENCH", "").split())
    rows, began = [], time.monotonic()
    before = conditions.before()
    total = sum(share for _, share, _ in parts)
    for name, share, text in parts:
        seconds = settings.MINUTES * 60 * share / (total if len(parts) > 1 else max(share, 20))
        measure.progress(f"bench: {name}: {text} (about {seconds:.0f} s)")
        rows += measure_one(name, seconds)
    said = conditions.after(before, [p[0] for p in parts], time.monotonic() - began)
    print("\n".join(said) + "\n")
    print(table.text(rows))
    if os.environ.get("BENCH_JSON"):
        with open(os.environ["BENCH_JSON"], "w", encoding="utf-8") as f:
            json.dump({"conditions": said, "rows": [r.as_json() for r in rows]}, f, indent=1)
    if target:
        document.write(target, said, rows)
    return 0
