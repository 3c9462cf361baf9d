"""What torchrun starts: each rank has a DataLoader of two workers, each of which fills a cache of its own.

SPDX-License-Identifier: Apache-2.0
"""

import torch
import torch.distributed
from torch.utils.data import DataLoader, Dataset

CACHED = 1 << 19  # of a sample: 16 MiB in each worker


class Samples(Dataset):
    def __init__(self):
        self.cache = {}

    def __len__(self):
        return 64

    def __getitem__(self, index):
        self.cache[index] = bytearray(CACHED)
        return torch.full((16,), float(index))


def main():
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    total = torch.zeros(1)
    for batch in DataLoader(Samples(), batch_size=4, num_workers=2,
                            multiprocessing_context="fork"):
        total += batch.sum()
    torch.distributed.all_reduce(total)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
