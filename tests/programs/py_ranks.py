"""Ranks that each build a list and fork many workers, which read it and live at the same time.

    py_ranks.py FACTS RANKS WORKERS OBJECTS [torch]

Each rank is an image of its own, with RANK and WORLD_SIZE in its environment. Workers are plain
forks, or those of a DataLoader; each reads the whole list and notes its private dirty memory, one
JSON line, when all have read.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True  # beside this file
from private_dirty import private_dirty  # noqa: E402


def note(worker):
    with open(sys.argv[1], "a", encoding="utf-8") as out:
        out.write(json.dumps({"rank": int(os.environ["RANK"]), "worker": worker,
                              "pid": os.getpid(), "copied": private_dirty()}) + "\n")


def read(data):
    for value in data:
        value.bit_length()


def build(count):
    return [i + 1000 for i in range(count)]  # the line


def plain(data, workers):
    ready, go = os.pipe(), os.pipe()
    pids = []
    for worker in range(workers):
        pid = os.fork()
        if not pid:
            os.close(go[1])
            read(data)
            note(worker)
            os.write(ready[1], b"r")
            os.read(go[0], 1)  # until nobody holds the other end
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(ready[0], 1)
    os.close(go[1])
    return all(os.waitpid(pid, 0)[1] == 0 for pid in pids)


def loaded(data, workers):
    from torch.utils.data import DataLoader, Dataset, get_worker_info  # pylint: disable=all

    class Data(Dataset):
        def __len__(self):
            return workers * 2

        def __getitem__(self, index):
            read(data)
            note(get_worker_info().id)
            return 0

    for _ in DataLoader(Data(), num_workers=workers, multiprocessing_context="fork"):
        pass
    return True


def main():
    ranks, workers, count = (int(a) for a in sys.argv[2:5])
    if "RANK" in os.environ:
        run = loaded if "torch" in sys.argv else plain
        sys.exit(not run(build(count), workers))
    started = [subprocess.Popen([sys.executable, *sys.argv],
                                env=dict(os.environ, RANK=str(r), WORLD_SIZE=str(ranks)))
               for r in range(ranks)]
    sys.exit(any([p.wait() for p in started]))


main()
