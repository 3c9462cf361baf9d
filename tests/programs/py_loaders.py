"""DataLoader with each way to start workers, and what their batches do to shared memory.

    py_loaders.py FACTS METHOD WHAT [STRATEGY]

METHOD fork, spawn or forkserver; STRATEGY of sharing file_descriptor (default) or file_system. WHAT:
  plain   two epochs, nothing is kept
  keep    every batch is kept by main
  clone   a clone of every batch is kept
  list    the data set is a list of Python objects, which spawned workers get as copies
  cache   every worker fills a cache of its own
  linger  batches are asked for and not fetched, and the process is killed
  orphan  the process is killed while its workers are busy for some seconds

FACTS gets one JSON line per worker, and one of main with what the kernel shows of it: memory files it
maps, descriptors it holds, bytes. Standard output is the same in every run.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import signal
import sys
import threading
import time

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset, get_worker_info

FLOATS = 65536  # of a sample: 256 KiB
BATCH = 4
BATCHES = 24
WORKERS = 2
CACHED = 1 << 20


def note(**facts):
    with open(sys.argv[1], "a", encoding="utf-8") as out:
        out.write(json.dumps(dict(facts, pid=os.getpid(), ppid=os.getppid())) + "\n")


class Samples(Dataset):
    def __init__(self, what):
        self.what = what
        self.rows = None
        self.cache = {}
        if what == "list":
            self.rows = [(i, str(i) * 4) for i in range(200000)]

    def __len__(self):
        return BATCH * BATCHES

    def __getitem__(self, index):
        if self.what == "cache":
            self.cache[index] = bytearray(CACHED)  # the cache's line
        if self.what == "orphan" and not self.cache:
            self.cache[index] = bytearray(16 * CACHED)
            note(busy=True)
            time.sleep(5)  # a worker looks for its parent between batches only
        if self.rows:
            return self.rows[index][0]
        return torch.full((FLOATS,), float(index))


def stay_awake():
    """Allocates all the time: who waits for work makes no event, and looks at nothing then."""
    while True:
        bytearray(1 << 16)
        time.sleep(0.02)


def start_worker(number):
    info = get_worker_info()
    if info.dataset.what == "linger":
        threading.Thread(target=stay_awake, daemon=True).start()
    rows = info.dataset.rows or []
    note(worker=number, of=info.num_workers, data=sys.getsizeof(rows) + sum(
        sys.getsizeof(row) + sum(map(sys.getsizeof, row)) for row in rows))


def collate(samples):
    if isinstance(samples[0], int):
        return torch.tensor(samples)
    return torch.stack(samples)  # the collate line


def held_by(pid):
    """Descriptors of memory files that a process holds."""
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return [link for link in links if "/torch_" in link]


def shared_files():
    """Inodes of memory files that this process maps, and descriptors of such files."""
    mapped, size = set(), 0
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            part = line.split(None, 5)
            if len(part) > 5 and "/torch_" in part[5] and part[4] not in mapped:
                mapped.add(part[4])
                ends = part[0].split("-")
                size += int(ends[1], 16) - int(ends[0], 16)
    return len(mapped), len(held_by("self")), size


def run(method, what):
    data = Samples(what)
    loader = DataLoader(data, batch_size=BATCH, num_workers=WORKERS, prefetch_factor=2,
                        collate_fn=collate, worker_init_fn=start_worker,
                        multiprocessing_context=method)
    kept, total = [], 0.0
    for _ in range(2 if what == "plain" else 1):
        rounds = iter(loader)  # the loader's line
        if what == "linger":
            next(rounds)
            # All that were asked for are made: they wait in their workers, but for those that came
            # here ahead of their turn, whose entry has the data beside the worker's number.
            early = sum(len(entry) == 2 for entry in rounds._task_info.values())
            waiting = steady = 0
            for _ in range(1200):
                waiting = sum(len(held_by(w.pid)) for w in rounds._workers)
                steady = steady + 1 if waiting == 2 * WORKERS - early else 0
                if steady == 40:  # for two seconds: the workers looked meanwhile (stay_awake)
                    break
                time.sleep(0.05)
            note(linger=True, waiting=waiting, files=shared_files())
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "orphan":
            while not os.path.exists(sys.argv[1]):
                time.sleep(0.05)
            while open(sys.argv[1], encoding="utf-8").read().count("busy") < WORKERS:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        for batch in rounds:
            total += float(batch.sum())
            if what == "keep":
                kept.append(batch)  # the line that keeps
            elif what == "clone":
                kept.append(batch.clone())
        del rounds
    batch = None
    note(main=True, kept=len(kept), files=shared_files())
    print(what, total)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 4:
        torch.multiprocessing.set_sharing_strategy(sys.argv[4])
    run(sys.argv[2], sys.argv[3])
