"""A DataLoader with two forked workers, for two epochs; what every worker allocates is known.

Worker w of epoch e keeps (w + 1) * (e + 1) blocks of 1 MiB. Standard output is the same in every
run; who is who goes to the file of the first argument, one JSON line per worker.

SPDX-License-Identifier: Apache-2.0
"""

import json
import os
import sys

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

BLOCK = 1 << 20


class Numbers(Dataset):
    def __init__(self):
        self.rows = [[float(i), float(i * i)] for i in range(64)]
        self.kept = []
        self.epoch = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return torch.tensor(self.rows[index])


def start_worker(number):
    data = get_worker_info().dataset
    for _ in range((number + 1) * (data.epoch + 1)):
        data.kept.append(bytes(BLOCK))  # the line
    with open(sys.argv[1], "a", encoding="utf-8") as out:
        out.write(json.dumps({
            "worker": number, "epoch": data.epoch, "pid": os.getpid(), "ppid": os.getppid(),
            "blocks": len(data.kept), "bytes": len(data.kept) * sys.getsizeof(bytes(BLOCK)),
        }) + "\n")


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    data = Numbers()
    for data.epoch in range(2):
        loader = DataLoader(data, batch_size=8, num_workers=2, worker_init_fn=start_worker,
                            multiprocessing_context="fork")
        total = torch.zeros(2)
        for batch in loader:
            total += batch.sum(0)
        print("epoch", data.epoch, total.tolist())


main()
