"""Feeds scripts/decode.py every way of cutting a trace, and many ways of damaging it, in one process.

    decode_damage.py DECODE.PY TRACE

A reader must come to an end by itself each time, must not hand out a record that the whole trace
has not (when it was only cut), and must say so when records are missing. Prints what it did, or
what went wrong and exits 1.

SPDX-License-Identifier: Apache-2.0
"""

import importlib.util
import json
import random
import sys


def load(path):
    spec = importlib.util.spec_from_file_location("decode", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(decode, data):
    """(records as texts, problems); no records and a problem when it refuses the file."""
    try:
        trace = decode.Trace(data)
    except decode.Bad as e:
        return [], [str(e)]
    rows = [json.dumps([c.proc, c.stream, c.seq, name, v]) for c, _, name, v in trace.records()]
    return rows, trace.problems


def fail(text):
    print(text)
    sys.exit(1)


def cut_everywhere(decode, data, whole):
    known = set(whole)
    for size in range(len(data)):
        rows, problems = read(decode, data[:size])
        if not known.issuperset(rows):
            fail(f"cut at {size}: a record that was never written")
        if rows != whole and not problems:
            fail(f"cut at {size}: {len(whole) - len(rows)} records are gone and nothing is said")
    print(f"{len(data)} cuts")


def damage(decode, data, rounds):
    rng = random.Random(1)
    for _ in range(rounds):
        bad = bytearray(data)
        for _ in range(rng.choice((1, 1, 4, 40))):
            at = rng.randrange(len(bad))
            what = rng.randrange(3)
            if what == 0:
                bad[at] ^= 1 << rng.randrange(8)
            elif what == 1:
                bad[at] = rng.choice((0, 0x7F, 0x80, 0xFF))
            else:
                bad[at:at + 64] = bytes(rng.randrange(256) for _ in range(len(bad[at:at + 64])))
        read(decode, bytes(bad))
    print(f"{rounds} damages")


def main():
    decode = load(sys.argv[1])
    with open(sys.argv[2], "rb") as f:
        data = f.read()
    whole, problems = read(decode, data)
    if problems or not whole:
        fail(f"the trace is not whole to begin with: {problems}")
    cut_everywhere(decode, data, whole)
    damage(decode, data, 2000)


main()
