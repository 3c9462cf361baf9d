"""What can be read from a trace without decoding it: committed bytes and facts (docs/FORMAT.md).

Works on a trace that is being written.

SPDX-License-Identifier: Apache-2.0
"""

import mmap
import os
import struct
import subprocess

import settings

CHUNK = struct.Struct("<4sIQIIIIQQIIQ")
FACTS = ("mode", "events", "python_mode", "host", "kernel", "libc", "python")


class Trace:
    """used: committed bytes of all chunks with their headers; hot_bytes: used, less the headers;
    chunks: their number; size: of the file."""

    def __init__(self, path):
        self.used = self.hot_bytes = self.chunks = 0
        self.size = os.path.getsize(path)
        if self.size < 4096:
            return
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as data:
            self.walk(data)

    def walk(self, data):
        header, unit = struct.unpack_from("<II", data, 12)[0], struct.unpack_from("<I", data, 32)[0]
        claimed, = struct.unpack_from("<Q", data, 256)
        at, stop = header, min(len(data), header + claimed * unit)
        while at + CHUNK.size <= stop:
            magic, units, own, _, _, _, _, _, _, _, used, _ = CHUNK.unpack_from(data, at)
            if magic != b"MTC1" or own != at or not units:
                at += unit
                continue
            self.chunks += 1
            self.used += CHUNK.size + used
            self.hot_bytes += used
            at += units * unit


def facts(path):
    """The FACT records of the first chunks: a key and a value, each a length and its bytes."""
    with open(path, "rb") as f:
        head = f.read(1 << 18)
    found = {}
    for key in FACTS:
        mark = bytes([len(key)]) + key.encode()
        at = head.find(mark)
        if at >= 0:
            at += len(mark)
            found[key] = head[at + 1:at + 1 + head[at]].decode("utf-8", "replace")
    return found


def cached(path):
    """Bytes of the file in the page cache; None where they can't be counted."""
    if not settings.FINCORE:
        return None
    done = subprocess.run([settings.FINCORE, "--bytes", "--noheadings", "--output", "RES", path],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else None
