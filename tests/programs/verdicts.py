"""Real PyTorch and numpy programs for verdicts: the case is the first argument, steps the second.

Every case prints what it holds when its work is done, by its own count: "kept N bytes".

SPDX-License-Identifier: Apache-2.0
"""

import collections
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CASE = sys.argv[1]
STEPS = int(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(1)


def losses():
    """The losses are kept with their graphs: all activations of all steps stay."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        x = torch.randn(32, 64)
        loss = model(x).square().mean()  # LOSS
        optimizer.zero_grad()
        loss.backward(retain_graph=True)
        optimizer.step()
        kept.append(loss)
    # Per step: the input, its hidden layer twice (before and after ReLU), the output, small ones.
    return STEPS * 4 * (32 * 64 + 2 * 32 * 256 + 2 * 32)


def lru():
    """A cache of at most 24 arrays."""
    cache = collections.OrderedDict()
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        key = int(rng.integers(0, 400))
        if key not in cache:
            cache[key] = np.zeros(64 * 1024, dtype=np.uint8) + 1  # CACHE
            if len(cache) > 24:
                cache.popitem(last=False)
    kept.append(cache)
    return len(cache) * 64 * 1024


class Cached(Dataset):
    """Keeps every item that it ever made: a dict in each worker."""

    def __init__(self):
        self.cache = {}

    def __len__(self):
        return STEPS * 4

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = np.full(20000, index % 250, dtype=np.uint8)  # ITEM
        return int(self.cache[index].sum())


def worker_dict():
    loader = DataLoader(Cached(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    total = 0
    for batch in loader:
        total += int(batch.sum())
    return STEPS * 4 * 20000


def shapes():
    """Convolutions of ever other shapes: scratch memory of many sizes, hardly any of it kept."""
    conv = nn.Conv2d(3, 16, 3, padding=1)
    with torch.no_grad():
        for i in range(STEPS):
            side = 32 + (i * 37) % 97
            conv(torch.zeros(2, 3, side, side + i % 13))
    return 0


def clean():
    """An ordinary training run: a CNN, Adam, three epochs, two workers."""
    images = torch.randn(STEPS, 1, 28, 28)
    labels = torch.randint(0, 10, (STEPS,))
    data = torch.utils.data.TensorDataset(images, labels)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
                          nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(3):
        loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2,
                            multiprocessing_context="fork")
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}: {total > 0}")
    return 0


kept = []
print("kept", {"losses": losses, "lru": lru, "worker-dict": worker_dict, "shapes": shapes,
               "clean": clean}[CASE](), "bytes")
