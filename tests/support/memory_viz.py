"""Reads a snapshot as PyTorch's memory_viz page and torch.cuda._memory_viz do, complains of what they
could not read, and prints what is in it.

    memory_viz.py FILE

SPDX-License-Identifier: Apache-2.0
"""
import pickle
import pickletools
import sys

# What the page's own reader knows; an integer of more than eight bytes it makes a BigInt of, which
# can't be calculated with there.
PAGE_READS = {
    "PROTO", "EMPTY_DICT", "EMPTY_LIST", "MARK", "SETITEMS", "APPEND", "BINUNICODE", "BININT1",
    "LONG1", "NEWTRUE", "NEWFALSE", "STOP",
}


def read(path):
    with open(path, "rb") as f:
        data = f.read()
    for opcode, argument, _ in pickletools.genops(data):
        assert opcode.name in PAGE_READS, opcode.name
        assert opcode.name != "LONG1" or 0 <= argument < 1 << 63
        assert opcode.name != "PROTO" or argument == 2
    return pickle.loads(data)


def check_segment(segment):
    at = segment["address"]
    for block in segment["blocks"]:  # the page adds sizes up instead of reading addresses
        assert block["address"] == at, (block["address"], at)
        at += block["size"]
        assert block["state"] in ("active_allocated", "inactive")
        assert all(set(f) == {"filename", "line", "name"} for f in block["frames"])
    assert at == segment["address"] + segment["total_size"]


def main():
    snapshot = read(sys.argv[1])
    segments = snapshot["segments"]
    for segment in segments:
        check_segment(segment)
        assert segment["device"] < len(snapshot["device_traces"])
    blocks = [b for s in segments for b in s["blocks"] if b["state"] == "active_allocated"]
    from torch.cuda import _memory_viz as viz
    assert "segments: %d" % len(segments) in viz.segsum(snapshot)
    viz.trace(snapshot)
    assert viz.memory(snapshot, format_flamegraph=str).count("active_allocated") == len(blocks)
    for page in viz.segment_plot(snapshot), viz.trace_plot(snapshot):
        assert "snapshot.pickle" in page
    print("snapshot reserved=%d allocated=%d segments=%d blocks=%d expandable=%d long_lived=%d" % (
        sum(s["total_size"] for s in segments), sum(b["size"] for b in blocks), len(segments), len(blocks),
        sum(s["is_expandable"] for s in segments),
        sum(any(f["name"] == "long_lived" for f in b["frames"]) for b in blocks)))


main()
