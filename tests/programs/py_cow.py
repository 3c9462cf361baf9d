"""What forked DataLoader workers copy of their parent's data, one variant after another.

Each variant runs in a forked process of its own, so that none sees what another left, and has a
loader with two workers that go over all of the data. Every worker notes its private dirty memory:
it had none when it was forked, so that is what it copied, and what little it allocated. One JSON
line per item goes to the file of the first argument, the last one of a pid counts.

Arguments: FILE SCALE VARIANT...

SPDX-License-Identifier: Apache-2.0
"""

import gc
import json
import os
import pickle
import sys

import numpy
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

sys.dont_write_bytecode = True  # beside this file
from private_dirty import private_dirty  # noqa: E402

ITEMS = 16
SCALE = float(sys.argv[2])


def count(n):
    return int(n * SCALE)


def ints():
    return [i + 1000 for i in range(count(1200000))]  # ints


def strs():
    return [str(i) for i in range(count(600000))]  # strs


def dicts():
    return [{"a": i + 1000, "b": i + 2000} for i in range(count(250000))]  # dicts


def tuples():
    return [(i + 1000, str(i)) for i in range(count(300000))]  # tuples


def array():
    return numpy.arange(count(4000000))  # numpy writes


def tensor():
    return torch.arange(count(4000000))  # tensor


def deep():
    return [{"a": (i + 1000, str(i))} for i in range(count(150000))]  # deep


class Pickled:
    def __init__(self, records):
        parts = [pickle.dumps(r) for r in records]
        self.ends = numpy.cumsum([len(p) for p in parts])
        self.bytes = numpy.frombuffer(b"".join(parts), dtype=numpy.uint8)

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, i):
        begin = self.ends[i - 1] if i else 0
        return pickle.loads(self.bytes[begin:self.ends[i]])


def pickled():
    return Pickled({"a": i, "b": i} for i in range(count(120000)))  # pickled


def freed():
    blocks = [bytes(1000) for _ in range(count(40000))]
    return [blocks[-1]]  # all others are free, below one that keeps the heap's end


def read(data, item):
    for i in range(item, len(data), ITEMS):
        data[i]  # pylint: disable=pointless-statement


def read_children(data, item):
    for i in range(item, len(data), ITEMS):
        for key, pair in data[i].items():
            key, pair[0], pair[1]  # pylint: disable=pointless-statement


def read_all(data):
    """Everything that has a reference count: what is forecast."""
    for row in data:
        row.bit_length()
    gc.collect()


class Data(Dataset):
    def __init__(self, variant, data):
        self.variant = variant
        self.data = data
        self.kept = None

    def __len__(self):
        return 2 * ITEMS

    def __getitem__(self, index):
        item = index // 2  # both workers come by every part
        if self.variant == "gc":
            if get_worker_info().id == 0:
                gc.collect()
        elif self.variant == "frozen":
            gc.collect()
        elif self.variant == "writes":
            self.data[:] = index
        elif self.variant == "reuse":
            if self.kept is None:
                self.kept = [bytes(1000) for _ in range(count(40000))]
        elif self.variant == "deep":
            read_children(self.data, item)
        elif self.variant == "all":
            read_all(self.data)
        else:
            read(self.data, item)
        note(self.variant, private_dirty())
        return 0


def note(variant, copied):
    with open(sys.argv[1], "a", encoding="utf-8") as out:
        out.write(json.dumps({"variant": variant, "pid": os.getpid(), "copied": copied,
                              "worker": get_worker_info().id}) + "\n")


BUILDERS = {"ints": ints, "strs": strs, "dicts": dicts, "tuples": tuples, "numpy": array,
            "tensor": tensor, "pickled": pickled, "gc": dicts, "frozen": dicts, "writes": array,
            "reuse": freed, "deep": deep, "all": ints}


def run(variant):
    data = BUILDERS[variant]()
    if variant == "frozen":
        gc.collect()
        gc.freeze()
    loader = DataLoader(Data(variant, data), batch_size=1, num_workers=2,
                        multiprocessing_context="fork")
    for _ in loader:
        pass


def main():
    torch.set_num_threads(1)
    for variant in sys.argv[3:]:
        pid = os.fork()
        if not pid:
            run(variant)
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(variant, status)


main()
